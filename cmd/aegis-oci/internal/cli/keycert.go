// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

type certificateOptions struct {
	vaultFlags
	selfSigned bool
	subject    string
	days       int
	install    bool
	chain      string
	output     string
}

func (a *app) keyCertificateCmd() *cobra.Command {
	o := &certificateOptions{}
	cmd := &cobra.Command{
		Use:   "certificate [flags] KEY",
		Short: "Make a certificate for a Transit key, or store one with it",
		Long: `With --self-signed make a certificate for KEY, signed by KEY itself in Vault, with
the usages that Notary verifiers demand. With --cert-chain take one that an
authority has issued, and check it. --install stores it with the key version, where
signing finds it.

Example:
  aegis-oci key certificate --self-signed --subject "C=US, ST=WA, O=Acme, CN=models" \
    --days 365 --install -o models.pem hashivault://aegis-model-sign`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runKeyCertificate(cmd, o, args[0]) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.selfSigned, "self-signed", false, "make a certificate signed by the key itself")
	f.StringVar(&o.subject, "subject", "", `subject of the certificate, such as "C=US, ST=WA, O=Acme, CN=models"`)
	f.IntVar(&o.days, "days", 365, "days for which the certificate is valid")
	f.StringVar(&o.chain, "cert-chain", "", "PEM file with an issued certificate and its issuers, leaf first, root last")
	f.BoolVar(&o.install, "install", false, "store the certificates with the key version in Vault")
	f.StringVarP(&o.output, "output", "o", "", "write the PEM to this file instead")
	o.vaultFlags.register(f)
	return cmd
}

const maxDays = 3650

func (o *certificateOptions) check() error {
	switch {
	case o.selfSigned == (o.chain != ""):
		return &usageError{msg: "key certificate takes either --self-signed or --cert-chain FILE", hint: `--self-signed --subject "C=US, ST=WA, O=Acme, CN=models"`}
	case o.selfSigned && o.subject == "":
		return &usageError{msg: "--self-signed needs --subject", hint: `--subject "C=US, ST=WA, O=Acme, CN=models"`}
	case !o.selfSigned && o.subject != "":
		return usagef("--subject goes with --self-signed")
	case o.days < 1 || o.days > maxDays:
		return usagef("--days must be between 1 and %d", maxDays)
	}
	return nil
}

func (a *app) runKeyCertificate(cmd *cobra.Command, o *certificateOptions, uri string) error {
	if err := o.check(); err != nil {
		return err
	}
	chain, version, err := a.certificateFor(cmd, o, uri)
	if err != nil {
		return err
	}
	var text []byte
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	r := aegis.CertificateResult{Key: uri, Version: version, Identity: notary.SubjectText(chain[0]),
		NotBefore: chain[0].NotBefore.UTC(), NotAfter: chain[0].NotAfter.UTC(), Certificates: string(text), Installed: o.install}
	if o.install {
		s, ref, err := a.transitKey(cmd, &o.vaultFlags, uri)
		if err != nil {
			return err
		}
		if err := s.InstallChain(cmd.Context(), ref, version, text); err != nil {
			return err
		}
		a.notice(fmt.Sprintf("stored with version %d of %s", version, uri))
	}
	return a.printPEM(o.output, r.Certificates, r)
}

// certificateFor makes or reads the certificate and finds the version it is of.
func (a *app) certificateFor(cmd *cobra.Command, o *certificateOptions, uri string) ([]*x509.Certificate, int, error) {
	if o.selfSigned {
		return a.selfSign(cmd, o, uri)
	}
	data, err := readFileBounded(o.chain, maxKeyFile)
	if err != nil {
		return nil, 0, &usageError{msg: fmt.Sprintf("--cert-chain: %v", err)}
	}
	chain, err := notary.ParseCertificates(o.chain, data)
	if err == nil {
		err = notary.CheckChain(chain)
	}
	if err != nil {
		return nil, 0, err
	}
	d, _, err := a.describe(cmd, &o.vaultFlags, uri)
	if err != nil {
		return nil, 0, err
	}
	for _, v := range d.Versions {
		if string(v.SPKI) == string(chain[0].RawSubjectPublicKeyInfo) {
			return chain, v.Version, nil
		}
	}
	return nil, 0, &notary.ChainError{Subject: chain[0].Subject.String(), Reason: "it is of no version of " + uri}
}

func (a *app) selfSign(cmd *cobra.Command, o *certificateOptions, uri string) ([]*x509.Certificate, int, error) {
	subject, err := notary.ParseSubject(o.subject)
	if err != nil {
		return nil, 0, &usageError{msg: "--subject: " + err.Error(), hint: `--subject "C=US, ST=WA, O=Acme, CN=models"`}
	}
	s, ref, err := a.transitKey(cmd, &o.vaultFlags, uri)
	if err != nil {
		return nil, 0, err
	}
	signer, err := s.X509Signer(cmd.Context(), ref)
	if err != nil {
		return nil, 0, err
	}
	if len(signature.Algorithms(signature.Notary, signer.KeyType())) == 0 {
		return nil, 0, &usageError{msg: fmt.Sprintf("Notary verifiers take no keys of type %s", signer.KeyType()), hint: "use an ecdsa-p256 key"}
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, 0, err
	}
	// A verifier whose clock is behind must be able to use it at once.
	from := time.Now().UTC().Add(-5 * time.Minute).Truncate(time.Second)
	template := notary.Template(subject, serial.Add(serial, big.NewInt(1)), from, from.AddDate(0, 0, o.days))
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, 0, err
	}
	leaf, err := leafOf(der)
	if err != nil {
		return nil, 0, err
	}
	return []*x509.Certificate{leaf}, signer.Version(), nil
}

type csrOptions struct {
	vaultFlags
	subject string
	output  string
}

func (a *app) keyCSRCmd() *cobra.Command {
	o := &csrOptions{}
	cmd := &cobra.Command{
		Use:   "csr [flags] KEY",
		Short: "Make a certificate request for a Transit key",
		Long: `Make a certificate request (PKCS #10) for KEY, signed by KEY in Vault, for an
authority or for Vault's PKI engine. Store what comes back, with its issuers and the
root, with key certificate --cert-chain FILE --install.

Example - with Vault's PKI, whose defaults Notary verifiers refuse:
  aegis-oci key csr --subject "C=US, ST=WA, O=Acme, CN=models" -o models.csr hashivault://aegis-model-sign
  vault write pki/roles/models key_usage=DigitalSignature ext_key_usage= code_signing_flag=true \
    server_flag=false client_flag=false country=US province=WA organization=Acme allow_any_name=true
  vault write -format=json pki/sign/models csr=@models.csr common_name=models`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runKeyCSR(cmd, o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.subject, "subject", "", `subject of the certificate, such as "C=US, ST=WA, O=Acme, CN=models"`)
	f.StringVarP(&o.output, "output", "o", "", "write the PEM to this file instead")
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runKeyCSR(cmd *cobra.Command, o *csrOptions, uri string) error {
	subject, err := notary.ParseSubject(o.subject)
	if err != nil {
		return &usageError{msg: "--subject: " + err.Error(), hint: `--subject "C=US, ST=WA, O=Acme, CN=models"`}
	}
	s, ref, err := a.transitKey(cmd, &o.vaultFlags, uri)
	if err != nil {
		return err
	}
	signer, err := s.X509Signer(cmd.Context(), ref)
	if err != nil {
		return err
	}
	template, err := notary.Request(subject)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signer)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	return a.printPEM(o.output, string(text), aegis.RequestResult{Key: uri, Version: signer.Version(), Request: string(text)})
}

// writeFile replaces a file whole: a failure half-way leaves the old one.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".aegis-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
