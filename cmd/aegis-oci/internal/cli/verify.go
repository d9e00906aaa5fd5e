// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
)

type verifyOptions struct {
	registryFlags
	vaultFlags
	trustFlags
	localFlags
	layoutFlags
	selectFlags
	partial    bool
	bundle     string
	ref        string
	digest     string
	digestFile string
}

func (a *app) verifyCmd() *cobra.Command {
	o := &verifyOptions{}
	cmd := &cobra.Command{
		Use:   "verify [flags] --key KEY | --policy FILE  REF | --dir DIR",
		Short: "Verify the signatures of a reference, or of a pulled directory",
		Long: `Resolve REF once and verify the signatures attached to it. With --dir no registry
is asked: the signatures that pull kept beside the model are verified again and
every file is hashed. Nothing that the directory says about itself is trusted. With
--bundle the directory, or the --file, is judged by that Model Signing bundle.

Example:
  aegis-oci verify --key hashivault://aegis-model-sign registry.example.com/models/vad:v1

Example - a directory, offline, with a public key:
  aegis-oci verify --dir /models/vad --key release.pub

Example - any directory, with an OpenSSF Model Signing bundle:
  aegis-oci verify --dir ./vad --bundle vad.sig --key release.pub`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runVerify(cmd, o, args) },
	}
	f := cmd.Flags()
	o.localFlags.register(f, "verify")
	o.selectFlags.register(f, "with --dir: ask for")
	f.BoolVar(&o.partial, "partial", false, "with --dir: ask for no more than the directory says it holds; who can write it can take files away")
	f.StringVar(&o.bundle, "bundle", "", "Model Signing bundle that signs the directory or the file")
	f.StringVar(&o.ref, "ref", "", "with --dir or --oci-layout: the reference that a policy's scope is chosen by")
	f.StringVar(&o.digest, "digest", "", "the only manifest digest that is accepted")
	f.StringVar(&o.digestFile, "digest-file", "", "write the verified digest to this file")
	o.layoutFlags.register(f)
	o.trustFlags.register(f)
	o.registryFlags.register(f)
	o.registerMirrors(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runVerify(cmd *cobra.Command, o *verifyOptions, args []string) error {
	if !o.trustFlags.given() {
		return &usageError{msg: "verify needs to know what to trust", hint: "give --key KEY or --policy FILE"}
	}
	if o.partial && !o.selection().IsZero() {
		return usagef("--partial and --include, --exclude, --kind exclude each other")
	}
	if (o.partial || !o.selection().IsZero()) && (o.dir == "" || o.bundle != "") {
		return usagef("--partial, --include, --exclude and --kind go with --dir")
	}
	want, err := parseDigest(o.digest)
	if err != nil {
		return err
	}
	var r aegis.VerifyResult
	switch {
	case o.file != "", o.dir != "" && o.bundle != "":
		r, err = a.verifyLocal(cmd, o, args)
	case o.dir != "":
		r, err = a.verifyDir(cmd, o, args, want)
	case onCommandLine(cmd.Flags().Lookup("bundle")):
		// Its variable may be there for what sign writes.
		err = usagef("--bundle goes with --dir or --file")
	default:
		r, err = a.verifyRef(cmd, o, args, want)
	}
	if err != nil {
		return err
	}
	return a.printWritten(r, func(w io.Writer) error { return verifyText(w, r) }, writeDigest(o.digestFile, r.Digest))
}

func parseDigest(s string) (digest.Digest, error) {
	if s == "" {
		return "", nil
	}
	d, err := digest.Parse(s)
	if err != nil || d.Algorithm() != digest.SHA256 {
		return "", usagef("--digest %q is not of the form sha256:<64 hex digits>", s)
	}
	return d, nil
}

func (a *app) verifyRef(cmd *cobra.Command, o *verifyOptions, args []string, want digest.Digest) (aegis.VerifyResult, error) {
	if len(args) != 1 {
		return aegis.VerifyResult{}, &usageError{msg: "verify takes one reference, or --dir", hint: cmd.UseLine()}
	}
	ref, err := o.parseOne(cmd, &o.registryFlags, args[0])
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	if ref, err = withDigest(ref, want); err != nil {
		return aegis.VerifyResult{}, err
	}
	scope, err := o.layoutFlags.scope(cmd, ref, o.ref, &o.trustFlags)
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	req, err := o.trustFlags.requirement(cmd.Context(), a, &o.vaultFlags, scope)
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	return client.Verify(cmd.Context(), ref, req)
}

func (a *app) verifyDir(cmd *cobra.Command, o *verifyOptions, args []string, want digest.Digest) (aegis.VerifyResult, error) {
	if len(args) != 0 {
		return aegis.VerifyResult{}, &usageError{msg: "verify --dir takes no further argument", hint: "name the reference with --ref"}
	}
	if err := o.noRegistry(cmd, "--dir asks none"); err != nil {
		return aegis.VerifyResult{}, err
	}
	if o.policyFlags.given() && o.ref == "" {
		return aegis.VerifyResult{}, &usageError{msg: "verify --dir with a policy needs --ref", hint: "--ref registry.example.com/models/vad: the directory's own word is not trusted"}
	}
	var name, shown string
	if o.ref != "" {
		ref, err := parseRef(o.ref)
		if err != nil {
			return aegis.VerifyResult{}, err
		}
		if ref.Digest != "" {
			if want != "" && want != ref.Digest {
				return aegis.VerifyResult{}, usagef("--digest differs from the digest in --ref")
			}
			want = ref.Digest
		}
		name, shown = ref.Name(), ref.String()
	}
	req, err := o.trustFlags.requirement(cmd.Context(), a, &o.vaultFlags, name)
	if err != nil {
		return aegis.VerifyResult{}, err
	}
	return aegis.VerifyDir(cmd.Context(), aegis.VerifyDirOptions{
		Dir:       o.dir,
		Digest:    want,
		Reference: shown,
		Check:     model.CheckOptions{Progress: a.progress(cmd), Select: o.selection(), AsRecorded: o.partial},
	}, req)
}

func verifyText(w io.Writer, r aegis.VerifyResult) error {
	if r.Path != "" && r.Digest == "" {
		fmt.Fprintf(w, "verified  %s\n          %d files, %s, every byte hashed\n", r.Path, r.Files, display.Bytes(r.Size))
	} else if r.Path != "" {
		fmt.Fprintf(w, "verified  %s\n          %s\n          %d files, %s, every byte hashed\n", r.Path, r.Digest, r.Files, display.Bytes(r.Size))
	} else {
		fmt.Fprintf(w, "verified  %s\n", r.Reference)
	}
	if r.Partial {
		fmt.Fprintln(w, "          a part of the model")
	}
	countedText(w, r.Signatures)
	return nil
}
