// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// localFlags name what is on disk instead of in a registry; sign and verify
// share them.
type localFlags struct {
	dir    string
	file   string
	ignore []string
}

func (l *localFlags) register(f *flagSet, verb string) {
	f.StringVar(&l.dir, "dir", "", verb+" this directory instead of a reference")
	f.StringVar(&l.file, "file", "", verb+" this file instead of a reference")
	f.StringArrayVar(&l.ignore, "ignore-path", nil, "with a bundle: path in the directory that is left out (repeatable)")
}

func (l *localFlags) given() bool { return l.dir != "" || l.file != "" }

// options checks the flags that go with a bundle.
func (l *localFlags) options(cmd *cobra.Command, r *registryFlags, bundle string, args []string) (aegis.LocalOptions, error) {
	switch {
	case (l.dir == "") == (l.file == ""):
		return aegis.LocalOptions{}, usagef("a bundle goes with either --dir or --file")
	case bundle == "":
		return aegis.LocalOptions{}, &usageError{msg: "--file and --dir need --bundle", hint: "--bundle FILE: where the signature is kept"}
	case len(args) != 0:
		return aegis.LocalOptions{}, usagef("--dir and --file take no reference")
	case l.file != "" && len(l.ignore) > 0:
		return aegis.LocalOptions{}, usagef("--ignore-path goes with --dir")
	}
	return aegis.LocalOptions{Path: first(l.dir, l.file), Bundle: bundle, Ignore: l.ignore}, r.noRegistry(cmd, "a bundle is in none")
}

func (a *app) runSignLocal(cmd *cobra.Command, o *signOptions, args []string) error {
	local, err := o.localFlags.options(cmd, &o.registryFlags, o.bundle, args)
	if err != nil {
		return err
	}
	if cmd.Flags().Changed("signature-format") && !slices.Equal(o.parsed(), []signature.Format{signature.OMS}) {
		return &usageError{msg: "local files are signed in the format oms alone", hint: "--signature-format oms"}
	}
	o.formats = []string{string(signature.OMS)}
	annotations, err := o.annotationFlag.parse()
	if err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	if err := checkReplaced("bundle", local.Bundle); err != nil {
		return err
	}
	signing, err := o.signFlags.signing(cmd.Context(), a, &o.vaultFlags, annotations, false)
	if err != nil {
		return err
	}
	local.Progress = a.progress(cmd)
	r, err := client.SignLocal(cmd.Context(), local, *signing)
	if err != nil {
		return err
	}
	if err := writeFile(local.Bundle, r.Envelope); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) error {
		fmt.Fprintf(w, "signed  %s (%d files, %s) with %s%s", r.Path, r.Files, display.Bytes(r.Size), r.Key, versionText(r.KeyVersion))
		if !r.SelfVerified {
			fmt.Fprint(w, " (not checked)")
		}
		fmt.Fprintf(w, "\n        %s\n", r.Bundle)
		return nil
	})
}

func (a *app) verifyLocal(cmd *cobra.Command, o *verifyOptions, args []string) (aegis.VerifyResult, error) {
	local, err := o.localFlags.options(cmd, &o.registryFlags, o.bundle, args)
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	if o.policyFlags.given() {
		return aegis.VerifyResult{}, &usageError{msg: "a policy is chosen by a reference, and a bundle has none", hint: "--key KEY"}
	}
	if o.ref != "" || o.digest != "" {
		return aegis.VerifyResult{}, usagef("--ref and --digest do not go with --bundle")
	}
	req, err := o.trustFlags.requirement(cmd.Context(), a, &o.vaultFlags, "")
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	bundle, err := readFileBounded(local.Bundle, signature.MaxEnvelopeSize)
	if err != nil {
		return aegis.VerifyResult{}, &usageError{msg: fmt.Sprintf("--bundle: %v", err)}
	}
	local.Progress = a.progress(cmd)
	return aegis.VerifyLocal(cmd.Context(), local, bundle, req)
}
