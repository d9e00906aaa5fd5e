// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

type signOptions struct {
	registryFlags
	vaultFlags
	signFlags
	annotationFlag
	localFlags
	layoutFlags
	ref        string
	digestFile string
}

func (a *app) signCmd() *cobra.Command {
	o := &signOptions{}
	cmd := &cobra.Command{
		Use:   "sign [flags] --key KEY REF | --dir DIR | --file FILE",
		Short: "Sign what a reference names and attach the signature",
		Long: `Resolve REF once, sign the manifest's digest with a Vault Transit key and attach
the signature as a referrer. Signing again adds a signature and disturbs none. With
--dir or --file the digests of local files are signed, into --bundle.

Example:
  aegis-oci sign --key hashivault://aegis-model-sign registry.example.com/models/vad@sha256:...

Example - for cosign of any version, and for notation:
  aegis-oci sign --key hashivault://aegis-model-sign --signature-format sigstore,cosign-tag,notary \
    registry.example.com/models/vad:v1

Example - a directory, as an OpenSSF Model Signing bundle:
  aegis-oci sign --key hashivault://aegis-model-sign --dir ./vad --bundle vad.sig`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runSign(cmd, o, args) },
	}
	f := cmd.Flags()
	f.StringVar(&o.digestFile, "digest-file", "", "write the manifest's digest to this file")
	o.localFlags.register(f, "sign")
	o.layoutFlags.register(f)
	f.StringVar(&o.ref, "ref", "", "with --oci-layout: the repository that is signed as a claim")
	o.annotationFlag.register(f, "signed claim, key=value (repeatable)")
	o.signFlags.register(f)
	o.registryFlags.register(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runSign(cmd *cobra.Command, o *signOptions, args []string) error {
	ctx := cmd.Context()
	repository, err := o.layoutFlags.repository(cmd, o.ref)
	if err != nil {
		return err
	}
	if o.localFlags.given() {
		return a.runSignLocal(cmd, o, args)
	}
	if len(args) != 1 {
		return &usageError{msg: "sign takes one reference, or --dir, or --file", hint: cmd.UseLine()}
	}
	ref, err := o.parseOne(cmd, &o.registryFlags, args[0])
	if err != nil {
		return err
	}
	annotations, err := o.annotationFlag.parse()
	if err != nil {
		return err
	}
	if err := cmp.Or(o.signFlags.check(), checkDigestFile(o.digestFile), o.signFlags.checkOutputs()); err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	signing, err := o.signFlags.signing(ctx, a, &o.vaultFlags, annotations, true)
	if err != nil {
		return err
	}
	signing.Repository = repository
	r, err := client.Sign(ctx, ref, *signing)
	if err != nil {
		return err
	}
	written := cmp.Or(o.signFlags.write(r.Signatures), writeDigest(o.digestFile, r.Digest))
	return a.printWritten(r, func(w io.Writer) error {
		fmt.Fprintf(w, "subject %s\n", r.Reference)
		signaturesText(w, r.Signatures)
		return nil
	}, written)
}
