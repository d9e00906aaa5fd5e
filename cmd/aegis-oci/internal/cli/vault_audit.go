// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

type vaultAuditOptions struct {
	registryFlags
	vaultFlags
	logs     []string
	repos    []string
	keys     []string
	device   string
	saltFile string
}

func (a *app) vaultAuditCmd() *cobra.Command {
	o := &vaultAuditOptions{}
	cmd := &cobra.Command{
		Use:   "audit [flags] --log FILE|- [FILE...]",
		Short: "Tie signatures in registries to the requests in Vault's audit log",
		Long: `Find, for every signature in the repositories, the request in Vault's audit log
that made it, and print who asked. The signature itself is looked for: it is hashed
as the audit device does it (update on sys/audit-hash/DEVICE) and compared with the
log. The request ID beside a signature is a hint that anybody may copy; where the
hash cannot be had it is all there is, and the line says "by hint, unproven".

Sign requests that no signature explains are listed, and signatures that nothing in
the log made. Logs may be plain or gzip, in any order; FILE... are more of them.

Exit codes: 0 everything is explained, 3 something is not, 4 could not tell.

Example:
  aegis-oci vault audit --log /var/log/vault/audit.log --key hashivault://aegis-model-sign \
    --repo registry.example.com/models/vad

Example - rotated logs, one reference:
  aegis-oci vault audit --repo registry.example.com/models/vad:v1 --log /var/log/vault/audit.log*`,
		RunE: func(cmd *cobra.Command, args []string) error { return a.runVaultAudit(cmd, o, args) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.logs, "log", nil, "audit log, plain or gzip; - is standard input (repeatable)")
	f.StringArrayVar(&o.repos, "repo", nil, "repository whose tags are looked at, or a reference with a tag or digest (repeatable)")
	f.StringArrayVar(&o.keys, "key", nil, "only sign requests for this Transit key want an explanation (repeatable)")
	f.StringVar(&o.device, "audit-device", "file", "path of the audit device that wrote the log")
	f.StringVar(&o.saltFile, "salt-file", "", "file with the audit device's salt, instead of asking Vault to hash")
	o.registryFlags.register(f)
	o.vaultFlags.register(f)
	return cmd
}

func (a *app) runVaultAudit(cmd *cobra.Command, o *vaultAuditOptions, args []string) error {
	ctx := cmd.Context()
	logs := append(o.logs, args...)
	if len(logs) == 0 {
		return &usageError{msg: "vault audit needs a log", hint: cmd.UseLine()}
	}
	refs, err := parseRefs(o.repos)
	if err != nil {
		return err
	}
	if len(refs) == 0 {
		if err := o.noRegistry(cmd, "no --repo is given"); err != nil {
			return err
		}
	}
	keys, err := a.auditKeys(o)
	if err != nil {
		return err
	}
	// Opened first: a name that is wrong should not cost a walk through a registry.
	files, err := a.openLogs(logs)
	defer closeAll(files)
	if err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	hash, proof, err := a.auditHasher(ctx, o)
	if err != nil {
		return err
	}
	r, err := a.audit(ctx, client, refs, files, auditlog.Options{Hash: hash, Keys: keys})
	if err != nil {
		return err
	}
	r.Proof = proof
	if err := a.print(r, auditText(r)); err != nil {
		return err
	}
	return auditVerdict(r)
}

func (a *app) audit(ctx context.Context, client *aegis.Client, refs []registry.Reference, files []openLog, o auditlog.Options) (auditlog.Report, error) {
	signatures, err := client.Signatures(ctx, refs)
	if err != nil {
		return auditlog.Report{}, err
	}
	m, err := auditlog.New(ctx, signatures, o)
	if err != nil {
		return auditlog.Report{}, err
	}
	for _, f := range files {
		if err := m.Read(ctx, f.name, f.reader); err != nil {
			return auditlog.Report{}, err
		}
	}
	return m.Report(ctx)
}

func parseRefs(list []string) ([]registry.Reference, error) {
	var refs []registry.Reference
	for _, s := range list {
		ref, err := parseRef(s)
		if err != nil {
			return nil, err
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

func (a *app) auditKeys(o *vaultAuditOptions) ([]auditlog.Key, error) {
	var keys []auditlog.Key
	for _, uri := range o.keys {
		if !vault.IsKeyRef(uri) {
			return nil, &usageError{msg: fmt.Sprintf("--key %s: an audit log speaks of Transit keys only", uri), hint: "--key hashivault://NAME"}
		}
		ref, err := a.keyRef(uri)
		if err != nil {
			return nil, err
		}
		namespace := first(ref.Namespace, o.namespace, a.env.first("VAULT_NAMESPACE", "BAO_NAMESPACE"))
		keys = append(keys, auditlog.Key{Namespace: namespace, Mount: ref.Mount, Name: ref.Name})
	}
	return keys, nil
}

// openLog is a log before it is read.
type openLog struct {
	name   string
	reader interface{ Read([]byte) (int, error) }
	file   *os.File
}

func (a *app) openLogs(names []string) ([]openLog, error) {
	var files []openLog
	stdin := false
	for _, name := range names {
		if name == "-" {
			if stdin {
				return files, usagef("standard input can be read once only")
			}
			stdin = true
			if err := a.takeStdin("--log -"); err != nil {
				return files, err
			}
			files = append(files, openLog{name: "standard input", reader: a.stdin})
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			return files, &usageError{msg: fmt.Sprintf("--log: %v", err)}
		}
		files = append(files, openLog{name: name, reader: f, file: f})
	}
	return files, nil
}

func closeAll(files []openLog) {
	for _, f := range files {
		if f.file != nil {
			_ = f.file.Close()
		}
	}
}

// maxSalt bounds the file with a salt; Vault's have 36 bytes.
const maxSalt = 4096

// auditHasher finds out whether a proof by value can be had. Without it the audit
// goes on with hints.
func (a *app) auditHasher(ctx context.Context, o *vaultAuditOptions) (auditlog.Hasher, string, error) {
	if o.saltFile != "" {
		raw, err := readFileBounded(o.saltFile, maxSalt)
		if err != nil {
			return nil, "", &usageError{msg: fmt.Sprintf("--salt-file: %v", err)}
		}
		salt := trimEnd(raw)
		if salt == "" {
			return nil, "", usagef("--salt-file %s is empty", o.saltFile)
		}
		return auditlog.Salt(salt), "salt", nil
	}
	if a.vaultConfig(&o.vaultFlags, o.auth == "agent").Address == "" {
		return a.hintsOnly("no address of a Vault is set")
	}
	s, err := a.session(ctx, &o.vaultFlags)
	var none *noTokenError
	if errors.As(err, &none) {
		return a.hintsOnly(none.Error())
	}
	if err != nil {
		return nil, "", err
	}
	hash := func(ctx context.Context, value string) (string, error) { return s.AuditHash(ctx, o.device, value) }
	_, err = hash(ctx, "aegis-oci")
	var e *vault.Error
	switch {
	case err == nil:
		return hash, "audit-hash", nil
	case errors.As(err, &e) && e.Kind == vault.Denied:
		return a.hintsOnly(err.Error())
	case errors.As(err, &e) && e.Kind == vault.BadRequest && e.Hint == "":
		known := *e
		known.Hint = "--audit-device NAME, as vault audit list shows it"
		return nil, "", &known
	}
	return nil, "", err
}

func (a *app) hintsOnly(why string) (auditlog.Hasher, string, error) {
	a.warn(why + ": signatures are tied to requests by hints only")
	return nil, "none", nil
}
