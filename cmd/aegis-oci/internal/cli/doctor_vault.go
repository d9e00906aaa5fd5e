// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// vault checks the way to Vault, the token, and every key.
func (d *doctor) vault(ctx context.Context) error {
	var refs []vault.KeyRef
	for _, uri := range d.o.keys {
		if !vault.IsKeyRef(uri) {
			if _, err := d.a.publicKey(uri); err != nil {
				return err
			}
			d.add("key "+uri, checkOK, "a public key, judged here: it verifies and cannot sign", "")
			continue
		}
		ref, err := d.a.keyRef(uri)
		if err != nil {
			return err
		}
		refs = append(refs, ref)
	}
	listener := false
	if d.o.auth == "agent" {
		l, err := d.a.vaultLogin(&d.o.vaultFlags)
		listener = err == nil && l.listener
	}
	cfg := d.a.vaultConfig(&d.o.vaultFlags, listener)
	if cfg.Address == "" {
		if len(refs) > 0 {
			d.add("vault", checkFail, "no address is set", "--vault-addr URL, or VAULT_ADDR")
		} else {
			d.add("vault", checkSkipped, "no address is set, and no Transit key given", "")
		}
		return nil
	}
	serving, err := d.health(ctx, cfg)
	if err != nil || !serving {
		return err
	}
	s, err := d.a.session(ctx, &d.o.vaultFlags)
	if err != nil {
		return d.failed(ctx, "vault login", err)
	}
	if err := d.token(ctx, s); err != nil {
		return err
	}
	for _, ref := range refs {
		if err := d.key(ctx, s, ref); err != nil {
			return err
		}
	}
	return nil
}

// health reports whether it makes sense to go on.
func (d *doctor) health(ctx context.Context, cfg vault.Config) (bool, error) {
	start := time.Now()
	h, err := vault.CheckHealth(ctx, cfg)
	if err != nil {
		return false, d.failed(ctx, "vault", err)
	}
	took := time.Since(start)
	how := ", plain HTTP on this machine"
	switch {
	case h.TLS && cfg.SkipVerify:
		how = ", TLS without a check of the certificate"
	case h.TLS:
		how = ", TLS"
	case d.o.vaultFlags.insecure:
		how = ", plain HTTP"
	}
	status, hint := checkOK, ""
	if d.o.vaultFlags.insecure {
		status, hint = checkWarn, "leave --insecure-vault out: a fake Vault can take the token and accept any signature"
	}
	d.add("vault", status, cfg.Address+", version "+h.Version+how, hint)
	switch {
	case !h.Initialized:
		d.add("vault seal", checkFail, "it is not initialized", "vault operator init")
		return false, nil
	case h.Sealed:
		d.add("vault seal", checkFail, "it is sealed", "unseal Vault")
		return false, nil
	case h.Standby:
		d.add("vault seal", checkOK, "unsealed, a standby that passes requests on", "")
	default:
		d.add("vault seal", checkOK, "unsealed and active", "")
	}
	d.clock("vault clock", h.Date, took)
	return true, nil
}

func (d *doctor) token(ctx context.Context, s *vault.Session) error {
	const login, name = "vault login", "vault token"
	t, err := s.TokenInfo(ctx)
	if err != nil {
		return d.failed(ctx, login, err)
	}
	if t.Obtained {
		d.add(login, checkOK, t.Origin+"; revoked at the end", "")
	} else {
		d.add(login, checkOK, "given, "+t.Origin+"; left alone", "")
	}
	life := first(t.Type, "token of unknown type")
	if t.NumUses > 0 {
		life += ", good for " + count(t.NumUses, "request")
	}
	if t.TTL > 0 {
		life += ", lives for another " + t.TTL.String()
	}
	const shorter = "log in with a method (jwt, kubernetes, approle), whose tokens live minutes"
	limit := d.o.maxTokenTTL
	switch {
	case t.Root:
		d.add(name, checkWarn, "a root token", shorter)
	case t.NeverExpires:
		d.add(name, checkWarn, life+", never expires", shorter)
	case t.TTL > limit:
		d.add(name, checkWarn, fmt.Sprintf("%s, more than %s", life, limit), shorter)
	case t.TTL == 0:
		d.add(name, checkOK, "its lifetime is not known: it may not look itself up", "")
	default:
		d.add(name, checkOK, life, "")
	}
	return nil
}

// key finds out what the token may do with one key and whether the key can.
func (d *doctor) key(ctx context.Context, s *vault.Session, ref vault.KeyRef) error {
	use, err := d.may(ctx, s, ref)
	if err != nil {
		return err
	}
	name := "key " + ref.String()
	k, err := s.DescribeKey(ctx, ref)
	detail := fmt.Sprintf("%s, latest version %d, signs from %d, verifies from %d", k.Type, k.Latest, k.MinSign, k.MinVerify)
	switch {
	case isVaultKind(err, vault.Denied):
		if !use {
			d.add(name, checkSkipped, "the token may neither read nor use it", "")
			return nil
		}
		d.add(name, checkOK, "it is there and of a type that signs; its versions may not be read", "")
	case err != nil:
		return d.failed(ctx, name, err)
	default:
		d.add(name, checkOK, detail, "")
	}
	return nil
}

// right is one thing that a token may be allowed to do with a key.
type right struct {
	name, path, capability, need string
	// probe finds out where capabilities may not be asked for.
	probe func(context.Context, vault.KeyRef) error
}

func rights(s *vault.Session, ref vault.KeyRef) []right {
	return []right{
		{"may sign", ref.SignPath(), "update", "needed in CI only", s.MaySign},
		{"may verify", ref.VerifyPath(), "update", "needed where models are verified with Vault", s.MayVerify},
		{"may read", ref.ReadPath(), "read", "not needed; with it the version is pinned and the type checked",
			func(ctx context.Context, ref vault.KeyRef) error {
				_, err := s.DescribeKey(ctx, ref)
				if isVaultKind(err, vault.KeyUnsuitable) {
					return nil // it could be read
				}
				return err
			}},
	}
}

// may adds the lines about the key's paths, and reports whether the token may use
// the key in some way. The error is what ended the command.
func (d *doctor) may(ctx context.Context, s *vault.Session, ref vault.KeyRef) (use bool, err error) {
	caps, err := s.Capabilities(ctx, ref, ref.SignPath(), ref.VerifyPath(), ref.ReadPath())
	if err != nil && !isVaultKind(err, vault.Denied, vault.KeyNotFound) {
		return false, d.failed(ctx, "vault capabilities", err)
	}
	broken := false
	for _, r := range rights(s, ref) {
		how := strings.Join(caps[r.path], ", ") + " on " + r.path
		if caps != nil {
			err = capability(caps, r.path, r.capability)
		} else {
			err = r.probe(ctx, ref)
			how = r.capability + " on " + r.path + ", found out by asking"
		}
		switch {
		case err == nil:
			use = use || r.capability == "update"
			d.add(r.name, checkOK, how, "")
		case errors.Is(err, errNotGranted) || isVaultKind(err, vault.Denied):
			d.add(r.name, checkWarn, "not granted: "+r.need, fmt.Sprintf("path %q { capabilities = [%q] }", r.path, r.capability))
		default:
			broken = true
			if ended := d.failed(ctx, r.name, err); ended != nil {
				return false, ended
			}
		}
	}
	d.excess(caps)
	if !use && !broken {
		d.add("policy", checkFail, "the token may neither sign nor verify with "+ref.String(),
			fmt.Sprintf("path %q { capabilities = [\"update\"] } in the token's policy, or that of %s", ref.VerifyPath(), ref.SignPath()))
	}
	return use, nil
}

var errNotGranted = errors.New("not granted")

func capability(caps map[string][]string, path, want string) error {
	if slices.Contains(caps[path], want) || slices.Contains(caps[path], "root") {
		return nil
	}
	return errNotGranted
}

// excess warns of a token that can do more with the key's paths than use it.
func (d *doctor) excess(caps map[string][]string) {
	var more []string
	for path, list := range caps {
		for _, c := range list {
			if c != "update" && c != "read" && c != "deny" && c != "create" && c != "list" {
				more = append(more, c+" on "+path)
			}
		}
	}
	if len(more) > 0 {
		slices.Sort(more)
		d.add("policy", checkWarn, "more than is needed: "+strings.Join(more, ", "), "grant update on sign or verify, and nothing else")
	}
}

func isVaultKind(err error, kinds ...vault.Kind) bool {
	var e *vault.Error
	return errors.As(err, &e) && slices.Contains(kinds, e.Kind)
}
