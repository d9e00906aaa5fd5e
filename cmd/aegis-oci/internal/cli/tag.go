// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) tagCmd() *cobra.Command {
	o := &registryFlags{}
	cmd := &cobra.Command{
		Use:   "tag [flags] REF TAG...",
		Short: "Give what a reference names further tags",
		Long: `Resolve REF once and write those very bytes under each TAG. Signatures belong to
the digest and need no copying.

Example:
  aegis-oci tag registry.example.com/models/vad@sha256:... production`,
		Args: minArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return err
			}
			for _, t := range args[1:] {
				if _, err := parseRef(ref.Name() + ":" + t); err != nil {
					return &usageError{msg: fmt.Sprintf("%q is not a tag", t), hint: cmd.UseLine()}
				}
			}
			client, err := o.workflows(a, cmd)
			if err != nil {
				return err
			}
			r, err := client.Tag(cmd.Context(), ref, args[1:])
			if err != nil {
				return err
			}
			return a.print(r, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "tagged  %s as %s\n", r.Reference, strings.Join(r.Tags, ", "))
				return err
			})
		},
	}
	o.register(cmd.Flags())
	return cmd
}
