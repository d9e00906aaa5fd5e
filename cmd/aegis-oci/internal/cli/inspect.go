// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

type inspectOptions struct {
	registryFlags
	vaultFlags
	layoutFlags
	keys []string
}

func (a *app) inspectCmd() *cobra.Command {
	o := &inspectOptions{}
	cmd := &cobra.Command{
		Use:   "inspect [flags] REF",
		Short: "Show files, signatures and other referrers of a reference",
		Long: `Show what REF names: files, sizes, every signature, and whether it verifies under
the keys given with --key. Without --key no signature is judged, and its time and
key version are hints that nobody has signed.

Example:
  aegis-oci inspect --key release.pub registry.example.com/models/vad:v1`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runInspect(cmd, o, args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.keys, "key", nil, "judge the signatures under this key (repeatable)")
	o.layoutFlags.register(f)
	o.registryFlags.register(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runInspect(cmd *cobra.Command, o *inspectOptions, args []string) error {
	ref, err := o.parseOne(cmd, &o.registryFlags, args[0])
	if err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	var keys []signature.Key
	if keys, err = a.verifyingKeys(cmd.Context(), &o.vaultFlags, o.keys, false); err != nil {
		return err
	}
	r, err := client.Inspect(cmd.Context(), ref, keys)
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) error { return inspectText(w, r) })
}

func inspectText(w io.Writer, r aegis.InspectResult) error {
	fmt.Fprintf(w, "%s\n%s, %s\n", r.Reference, first(r.ArtifactType, r.MediaType), display.Bytes(r.Size))
	mapText(w, "annotation ", r.Annotations)
	fmt.Fprintf(w, "\nfiles (%d)\n", len(r.Files))
	for _, f := range r.Files {
		fmt.Fprintf(w, "  %10s  %s  %s\n", display.Bytes(f.Size), f.Digest.Encoded()[:12], oneLine(f.Path))
	}
	fmt.Fprintf(w, "\nsignatures (%d)\n", len(r.Signatures))
	for _, s := range r.Signatures {
		inspectSignature(w, s)
	}
	if len(r.Referrers) > 0 {
		fmt.Fprintf(w, "\nother referrers (%d)\n", len(r.Referrers))
		for _, x := range r.Referrers {
			fmt.Fprintf(w, "  %s  %s\n", x.Digest, oneLine(x.ArtifactType))
		}
	}
	if r.Truncated {
		fmt.Fprintln(w, "\nmore is attached than was looked at")
	}
	return nil
}

func inspectSignature(w io.Writer, s aegis.InspectedSignature) {
	fmt.Fprintf(w, "  %s  %s  %s\n", s.Status, s.Format, s.Manifest)
	if s.Key != "" {
		fmt.Fprintf(w, "    key        %s%s\n", s.Key, versionText(s.KeyVersion))
	} else if s.KeyVersion > 0 {
		fmt.Fprintf(w, "    key version %d (hint)\n", s.KeyVersion)
	}
	if s.Claims != nil {
		claimsText(w, "    ", *s.Claims)
	} else if s.Created != "" {
		fmt.Fprintf(w, "    created    %s (hint)\n", oneLine(s.Created))
	}
	if s.VaultRequestID != "" {
		fmt.Fprintf(w, "    request    %s (hint)\n", oneLine(s.VaultRequestID))
	}
	for _, reason := range s.Reasons {
		fmt.Fprintf(w, "    %s\n", oneLine(reason))
	}
}
