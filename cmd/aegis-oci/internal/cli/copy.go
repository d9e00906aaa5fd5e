// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

type copyOptions struct {
	from, to    registryFlags
	fromLayout  layoutFlags
	toLayout    bool
	concurrency int
	noReferrers bool
	ref         string
	digestFile  string
	vaultFlags
	trustFlags
}

func (a *app) copyCmd() *cobra.Command {
	o := &copyOptions{}
	cmd := &cobra.Command{
		Use:     "copy [flags] SRC DST[,TAG...]",
		Aliases: []string{"cp"},
		Short:   "Copy a model with its signatures between registries and OCI image layouts",
		Long: `Resolve SRC once and copy that digest with everything that is attached to it. With
--key or --policy it is verified before the first write. Each blob is checked while
it flows, and tags are written last. A layout is a directory, or a tar file whose
name ends in .tar.

Example - out of a registry, for a site without a network:
  aegis-oci copy --key release.pub --to-oci-layout registry.example.com/models/vad:v1 vad.tar:v1

Example - into the registry of that site:
  aegis-oci copy --key release.pub --from-oci-layout vad.tar:v1 registry.internal/models/vad:v1`,
		Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runCopy(cmd, o, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.fromLayout.ociLayout, "from-oci-layout", false, "SRC is PATH[:TAG][@DIGEST] in an OCI image layout, a directory or a tar file")
	f.BoolVar(&o.toLayout, "to-oci-layout", false, "DST is PATH[:TAG[,TAG...]] in an OCI image layout; a PATH that ends in .tar becomes a tar file")
	f.BoolVar(&o.noReferrers, "no-referrers", false, "leave signatures and whatever else is attached")
	f.StringVar(&o.ref, "ref", "", "with --from-oci-layout: the repository by which a policy's scope is chosen")
	f.StringVar(&o.digestFile, "digest-file", "", "write the manifest's digest to this file")
	f.IntVar(&o.concurrency, "concurrency", 4, "blobs that move at once")
	o.from.registerSide(f, "from-", "source")
	o.from.registerMirrors(f)
	o.from.registerRate(f)
	o.to.registerSide(f, "to-", "destination")
	o.trustFlags.register(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runCopy(cmd *cobra.Command, o *copyOptions, args []string) error {
	if truthy(a.env[requireVerify]) && !o.trustFlags.given() {
		return &usageError{msg: requireVerify + " forbids a copy that is not verified", hint: "give --key KEY or --policy FILE"}
	}
	c, err := o.options(args)
	if err != nil {
		return err
	}
	if err := o.noRegistries(cmd); err != nil {
		return err
	}
	if (o.from.passStdin || o.from.tokenStdin) && (o.to.passStdin || o.to.tokenStdin) {
		return usagef("standard input holds one secret: give the other by --from-registry-config or --to-registry-config")
	}
	scope, err := o.fromLayout.scope(cmd, c.From, o.ref, &o.trustFlags)
	if err != nil {
		return err
	}
	if err := o.checkOutput(c.To); err != nil {
		return err
	}
	o.from.concurrency, o.to.concurrency = o.concurrency, o.concurrency
	client, err := o.from.workflows(a, cmd)
	if err != nil {
		return err
	}
	if c.Into, err = o.to.client(a); err != nil {
		return err
	}
	if o.trustFlags.given() {
		req, err := o.trustFlags.requirement(cmd.Context(), a, &o.vaultFlags, scope)
		if err != nil {
			return err
		}
		c.Requirement = &req
	}
	r, err := client.Copy(cmd.Context(), c)
	if err != nil {
		return err
	}
	return a.printWritten(r, func(w io.Writer) error { return copyText(w, r) }, writeDigest(o.digestFile, r.Digest))
}

// checkOutput leaves a file alone whose directory the copy may make.
func (o *copyOptions) checkOutput(to aegis.Reference) error {
	if o.toLayout {
		dir := filepath.Dir(o.digestFile)
		_, err := os.Stat(dir)
		within, relErr := filepath.Rel(to.Name(), dir)
		if errors.Is(err, fs.ErrNotExist) && relErr == nil && filepath.IsLocal(within) {
			return nil
		}
	}
	return checkDigestFile(o.digestFile)
}

// noRegistries is noRegistry for the sides that are layouts.
func (o *copyOptions) noRegistries(cmd *cobra.Command) error {
	if o.fromLayout.ociLayout {
		if err := o.from.noRegistry(cmd, "SRC is in a layout"); err != nil {
			return err
		}
	}
	if o.toLayout {
		return o.to.noRegistry(cmd, "DST is in a layout")
	}
	return nil
}

// options reads both references; the destination may have several tags.
func (o *copyOptions) options(args []string) (aegis.CopyOptions, error) {
	from, err := o.fromLayout.parse(args[0])
	if err != nil {
		return aegis.CopyOptions{}, err
	}
	c := aegis.CopyOptions{From: from, NoReferrers: o.noReferrers}
	if o.toLayout {
		refs, err := layout.ParseReferences(args[1])
		if err != nil {
			return aegis.CopyOptions{}, err
		}
		c.To = refs[0]
		for _, r := range refs[1:] {
			c.Tags = append(c.Tags, r.Tag)
		}
		return c, nil
	}
	refs, err := registry.ParseReferences(args[1])
	if err != nil {
		return aegis.CopyOptions{}, err
	}
	c.To = refs[0]
	for _, r := range refs[1:] {
		c.Tags = append(c.Tags, r.Tag)
	}
	return c, nil
}

func copyText(w io.Writer, r aegis.CopyResult) error {
	fmt.Fprintf(w, "copied  %s\n     to %s\n", r.Source, r.Reference)
	fmt.Fprintf(w, "        %s sent, %d attached\n", display.Bytes(r.BytesCopied), r.Referrers)
	if len(r.Tags) > 0 {
		fmt.Fprintf(w, "tagged  %s\n", strings.Join(r.Tags, ", "))
	}
	countedText(w, r.Signatures)
	return nil
}
