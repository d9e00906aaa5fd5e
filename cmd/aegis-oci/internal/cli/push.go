// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

type textFunc = func(io.Writer) error

type pushOptions struct {
	registryFlags
	vaultFlags
	signFlags
	annotationFlag
	digestCacheFlags

	sign          bool
	digestFile    string
	name          string
	version       string
	exclude       []string
	followOutside bool
	mountFrom     []string
}

func (a *app) pushCmd() *cobra.Command {
	o := &pushOptions{}
	cmd := &cobra.Command{
		Use:   "push [flags] REF[,TAG...] PATH...",
		Short: "Pack a model, upload it, sign it, and only then move the tag",
		Long: `Pack a directory (its contents) or files into a CNCF ModelPack artifact and
upload it. With --sign the manifest's digest is signed with a Vault Transit key and
the signature attached as a referrer. The tags are written last: if anything fails
before, they do not move.

Example - push and sign a directory:
  aegis-oci push --sign --key hashivault://aegis-model-sign registry.example.com/models/vad:v1 ./vad

Example - two tags, an annotation, a signature that holds for 90 days:
  aegis-oci push --sign --key hashivault://aegis-model-sign -e 2160h -a team=speech \
    registry.example.com/models/vad:v1,latest ./vad`,
		Args: minArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runPush(cmd, o, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.sign, "sign", false, "sign the manifest (needs --key)")
	f.StringVar(&o.digestFile, "digest-file", "", "write the manifest's digest to this file")
	f.StringVar(&o.name, "model-name", "", "name of the model in its config")
	f.StringVar(&o.version, "model-version", "", "version of the model in its config")
	f.StringArrayVar(&o.exclude, "exclude", nil, "leave out what matches this pattern, as in .aegisignore (repeatable)")
	f.BoolVar(&o.followOutside, "follow-outside", false, "follow symbolic links that leave the model's directory")
	f.StringArrayVar(&o.mountFrom, "mount-from", nil, "repository of the same registry that may have the files already (repeatable)")
	o.digestCacheFlags.register(f)
	o.annotationFlag.register(f, "annotation of the manifest, key=value (repeatable)")
	o.signFlags.register(f)
	o.registryFlags.register(f)
	o.registerRate(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runPush(cmd *cobra.Command, o *pushOptions, args []string) error {
	ctx := cmd.Context()
	refs, err := registry.ParseReferences(args[0])
	if err != nil {
		return err
	}
	annotations, err := o.annotationFlag.parse()
	if err != nil {
		return err
	}
	if !o.sign {
		name := o.signFlags.used()
		if name == "" && o.trust {
			name = "--trust-digest-cache"
		}
		if name != "" {
			return &usageError{msg: name + " has no effect without --sign", hint: "aegis-oci push --sign --key KEY " + args[0] + " PATH..."}
		}
	}
	if err := cmp.Or(checkDigestFile(o.digestFile), o.signFlags.checkOutputs()); err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	p := aegis.PushOptions{
		Ref:        refs[0],
		Paths:      args[1:],
		TrustCache: o.trust,
		MountFrom:  o.mountFrom,
		Pack: model.PackOptions{
			Name:          o.name,
			Version:       o.version,
			Annotations:   annotations,
			Exclude:       o.exclude,
			FollowOutside: o.followOutside,
		},
	}
	if p.Cache, err = o.digestCacheFlags.open(a); err != nil {
		return err
	}
	for _, r := range refs[1:] {
		p.Tags = append(p.Tags, r.Tag)
	}
	if o.sign {
		// The key is opened before the first byte moves: a role that may not sign
		// must not cost an upload.
		if p.Signing, err = o.signFlags.signing(ctx, a, &o.vaultFlags, nil, false); err != nil {
			return err
		}
	}
	r, err := client.Push(ctx, p)
	if err != nil {
		return err
	}
	written := cmp.Or(o.signFlags.write(r.Signatures), writeDigest(o.digestFile, r.Digest))
	return a.printWritten(r, func(w io.Writer) error { return pushText(w, r) }, written)
}

func pushText(w io.Writer, r aegis.PushResult) error {
	fmt.Fprintf(w, "pushed  %s\n", r.Reference)
	fmt.Fprintf(w, "        %d files, %s (%s uploaded)\n", r.Files, display.Bytes(r.Size), display.Bytes(r.BytesUploaded))
	signaturesText(w, r.Signatures)
	if len(r.Tags) > 0 {
		fmt.Fprintf(w, "tagged  %s\n", strings.Join(r.Tags, ", "))
	}
	return nil
}

func signaturesText(w io.Writer, made []aegis.SignatureMade) {
	for _, s := range made {
		fmt.Fprintf(w, "signed  %s with %s%s", s.Format, s.Key, versionText(s.KeyVersion))
		if !s.SelfVerified {
			fmt.Fprint(w, " (not checked)")
		}
		fmt.Fprintf(w, "\n        %s\n", s.Digest)
	}
}

func versionText(v int) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf(" version %d", v)
}
