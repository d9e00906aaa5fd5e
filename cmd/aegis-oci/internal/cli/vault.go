// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import "github.com/spf13/cobra"

// vaultCmd groups what an operator of Vault needs.
func (a *app) vaultCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vault",
		Short: "For operators of Vault: set it up, and what its audit log says of signatures",
		Args:  exactArgs(0),
	}
	cmd.AddCommand(a.vaultAuditCmd(), a.vaultSetupCmd())
	return cmd
}
