// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

func (a *app) keyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Show a Transit key, its public keys and its certificates",
		Long: `Look at a Transit key, get its public keys, and make the certificates that Notary
verifiers look for. The private key stays in Vault.`,
		Args: exactArgs(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return &usageError{msg: "key needs a command: show, public, certificate or csr", hint: "aegis-oci key --help"}
		},
	}
	cmd.AddCommand(a.keyShowCmd(), a.keyPublicCmd(), a.keyCertificateCmd(), a.keyCSRCmd())
	return cmd
}

func (a *app) keyShowCmd() *cobra.Command {
	v := &vaultFlags{}
	cmd := &cobra.Command{
		Use:   "show [flags] KEY",
		Short: "Show type, versions, formats and certificates of a Transit key",
		Long: `Read KEY and show its type, its versions with what each can still do, the
signature formats that take it, and the certificates stored with each version.

Example:
  aegis-oci key show hashivault://aegis-model-sign`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, _, err := a.describe(cmd, v, args[0])
			if err != nil {
				return err
			}
			r := showKey(args[0], d)
			return a.print(r, func(w io.Writer) error { return keyText(w, r) })
		},
	}
	v.register(cmd.Flags())
	return cmd
}

// describe reads the key that uri names.
func (a *app) describe(cmd *cobra.Command, v *vaultFlags, uri string) (vault.KeyDetails, vault.KeyRef, error) {
	s, ref, err := a.transitKey(cmd, v, uri)
	if err != nil {
		return vault.KeyDetails{}, vault.KeyRef{}, err
	}
	d, err := s.Details(cmd.Context(), ref)
	return d, ref, err
}

func (a *app) transitKey(cmd *cobra.Command, v *vaultFlags, uri string) (*vault.Session, vault.KeyRef, error) {
	if !vault.IsKeyRef(uri) {
		return nil, vault.KeyRef{}, &usageError{msg: fmt.Sprintf("%s is no Transit key", uri), hint: "hashivault://[MOUNT/]NAME"}
	}
	ref, err := a.keyRef(uri)
	if err != nil {
		return nil, vault.KeyRef{}, err
	}
	s, err := a.session(cmd.Context(), v)
	return s, ref, err
}

func showKey(uri string, d vault.KeyDetails) aegis.KeyResult {
	r := aegis.KeyResult{Key: uri, Type: d.Type, Latest: d.Latest, MinVerify: d.MinVerify, MinSign: d.MinSign,
		Formats: []signature.Format{}, Versions: []aegis.KeyVersion{}}
	for _, f := range signature.Formats() {
		if d.Key != signature.KeyUnknown && len(signature.Algorithms(f, d.Key)) > 0 {
			r.Formats = append(r.Formats, f)
		}
	}
	for _, v := range d.Versions {
		kv := aegis.KeyVersion{Version: v.Version, Signs: v.Version >= d.MinSign, Verifies: v.Version >= d.MinVerify,
			PublicKey: string(v.PublicKey), Certificates: []aegis.KeyCertificate{}}
		if len(v.Chain) > 0 {
			kv.Certificates = showChain(v)
		}
		r.Versions = append(r.Versions, kv)
	}
	return r
}

func showChain(v vault.KeyVersion) []aegis.KeyCertificate {
	chain, err := notary.ParseCertificates("the stored chain", v.Chain)
	if err != nil {
		return []aegis.KeyCertificate{{Problem: err.Error()}}
	}
	out := make([]aegis.KeyCertificate, len(chain))
	for i, c := range chain {
		out[i] = aegis.KeyCertificate{Identity: notary.SubjectText(c), NotBefore: c.NotBefore.UTC(), NotAfter: c.NotAfter.UTC()}
	}
	if err := notary.CheckChain(chain); err != nil {
		out[0].Problem = err.Error()
	}
	return out
}

func keyText(w io.Writer, r aegis.KeyResult) error {
	names := make([]string, len(r.Formats))
	for i, f := range r.Formats {
		names[i] = string(f)
	}
	fmt.Fprintf(w, "%s\ntype      %s\nformats   %s\n", r.Key, r.Type, strings.Join(names, ", "))
	for _, v := range r.Versions {
		var can []string
		if v.Signs {
			can = append(can, "signs")
		}
		if v.Verifies {
			can = append(can, "verifies")
		}
		latest := ""
		if v.Version == r.Latest {
			latest = " (latest)"
		}
		fmt.Fprintf(w, "version %d%s: %s\n", v.Version, latest, strings.Join(can, ", "))
		for _, c := range v.Certificates {
			fmt.Fprintf(w, "  certificate %s, until %s\n", oneLine(c.Identity), c.NotAfter.Format(time.RFC3339))
			if c.Problem != "" {
				fmt.Fprintf(w, "    not usable: %s\n", oneLine(c.Problem))
			}
		}
	}
	return nil
}

func (a *app) keyPublicCmd() *cobra.Command {
	v := &vaultFlags{}
	var output string
	cmd := &cobra.Command{
		Use:   "public [flags] KEY",
		Short: "Print the public keys of a Transit key, for verifying without Vault",
		Long: `Print the public keys of every version of KEY, or of the one that KEY names, as
PEM. The file serves --key of verify and pull, cosign verify --key, and any other
verifier. Keep it: versions that Vault archives vanish from what it shows.

Example:
  aegis-oci key public -o release.pub hashivault://aegis-model-sign`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, _, err := a.describe(cmd, v, args[0])
			if err != nil {
				return err
			}
			r := aegis.PublicKeyResult{Key: args[0], Versions: []int{}}
			for _, version := range d.Versions {
				r.PublicKeys += string(version.PublicKey)
				r.Versions = append(r.Versions, version.Version)
			}
			return a.printPEM(output, r.PublicKeys, r)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write the PEM to this file instead")
	v.register(cmd.Flags())
	return cmd
}

// printPEM writes PEM to a file or as the text of the result.
func (a *app) printPEM(path, pem string, result any) error {
	if path != "" {
		if err := writeFile(path, []byte(pem)); err != nil {
			return err
		}
	}
	return a.print(result, func(w io.Writer) error {
		if path != "" {
			return nil
		}
		_, err := io.WriteString(w, pem)
		return err
	})
}

// leafOf parses what has just been made.
func leafOf(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return c, notary.CheckChain([]*x509.Certificate{c})
}
