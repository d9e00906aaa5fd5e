// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

type loginResult struct {
	Registry string `json:"registry"`
	// Stored is the file or the credential helper.
	Stored string `json:"stored"`
}

func (a *app) loginCmd() *cobra.Command {
	o := &registryFlags{}
	cmd := &cobra.Command{
		Use:   "login [flags] REGISTRY",
		Short: "Check credentials for a registry and store them as docker does",
		Long: `Check the credentials against the registry and store them in docker's
configuration file, or with the credential helper that the file names.

Example:
  printf %s "$TOKEN" | aegis-oci login -u ci --password-stdin registry.example.com`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runLogin(cmd, o, args[0]) },
	}
	o.register(cmd.Flags())
	return cmd
}

func (a *app) logoutCmd() *cobra.Command {
	o := &registryFlags{}
	cmd := &cobra.Command{
		Use:   "logout [flags] REGISTRY",
		Short: "Remove stored credentials for a registry",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := a.credentialFile(o)
			if err != nil {
				return err
			}
			saved, err := registry.RemoveCredential(cmd.Context(), file, args[0])
			if err != nil {
				return err
			}
			return a.print(loginResult{Registry: args[0], Stored: saved.Where}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "logged out of %s (%s)\n", args[0], saved.Where)
				return err
			})
		},
	}
	cmd.Flags().StringArrayVar(&o.configs, "registry-config", nil, "docker config file to change instead of docker's own")
	return cmd
}

// credentialFile is the one file that login and logout write.
func (a *app) credentialFile(o *registryFlags) (string, error) {
	if len(o.configs) > 1 {
		return "", usagef("--registry-config can be given once here: credentials go to one file")
	}
	if len(o.configs) == 1 {
		return o.configs[0], nil
	}
	dir := a.dockerConfigDir()
	if dir == "" {
		return "", &usageError{msg: "there is no home directory to store credentials in", hint: "--registry-config FILE"}
	}
	return filepath.Join(dir, "config.json"), nil
}

func (a *app) runLogin(cmd *cobra.Command, o *registryFlags, host string) error {
	file, err := a.credentialFile(o)
	if err != nil {
		return err
	}
	user, pass, token, err := o.credentials(a)
	if err != nil {
		return err
	}
	if pass == "" && token == "" {
		return &usageError{
			msg:  "login needs credentials",
			hint: `printf %s "$TOKEN" | aegis-oci login -u USER --password-stdin ` + host,
		}
	}
	// Only what was given is checked: what some file holds must not answer for it.
	client, err := o.clientWith(a, registry.CredentialOptions{Username: user, Password: pass, IdentityToken: token})
	if err != nil {
		return err
	}
	if err := client.Ping(cmd.Context(), host); err != nil {
		return err
	}
	saved, err := registry.SaveCredential(cmd.Context(), file, host, registry.Credential{Username: user, Password: pass, IdentityToken: token})
	if err != nil {
		return err
	}
	if saved.PlainText {
		a.warn("the credentials are stored unencrypted in " + saved.Where + "; a docker credential helper avoids that")
	}
	return a.print(loginResult{Registry: host, Stored: saved.Where}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "logged in to %s (%s)\n", host, saved.Where)
		return err
	})
}
