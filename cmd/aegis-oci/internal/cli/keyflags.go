// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "", "0", "f", "false", "no":
		return false
	}
	return true
}

func (a *app) keyRef(uri string) (vault.KeyRef, error) {
	ref, err := vault.ParseKeyRef(uri, first(a.env["TRANSIT_SECRET_ENGINE_PATH"], "transit"))
	if err != nil {
		return vault.KeyRef{}, &usageError{msg: err.Error(), hint: keyHint}
	}
	return ref, nil
}

const keyHint = "a key is hashivault://[MOUNT/]NAME[?version=N&namespace=NS], a PEM file of public keys, or env://NAME"

// signer opens the Transit key that uri names, with what is known of it. Before an
// upload it asks whether the key may sign.
func (a *app) signer(ctx context.Context, v *vaultFlags, uri string, known vault.SignerOptions) (*vault.Signer, error) {
	if !vault.IsKeyRef(uri) {
		return nil, &usageError{
			msg:  fmt.Sprintf("--key %s: only a Transit key can sign", uri),
			hint: "--key hashivault://NAME",
		}
	}
	ref, err := a.keyRef(uri)
	if err != nil {
		return nil, err
	}
	s, err := a.session(ctx, v)
	if err != nil {
		return nil, err
	}
	return s.SignerWith(ctx, ref, known)
}

// selfVerifyKey is what a fresh signature is checked with: the public key given,
// the one that the signer could read (nil here), or Vault itself.
func (a *app) selfVerifyKey(ctx context.Context, v *vaultFlags, s signature.Signer, uri, publicKey string) (signature.Key, error) {
	if publicKey != "" {
		return a.publicKey(publicKey)
	}
	if s.ID().SPKI != nil {
		return nil, nil
	}
	return a.verifyingKey(ctx, v, uri)
}

// verifyingKeys opens every --key. identified asks for keys that say which public
// key accepted, where that can be had.
func (a *app) verifyingKeys(ctx context.Context, v *vaultFlags, uris []string, identified bool) ([]signature.Key, error) {
	keys := make([]signature.Key, 0, len(uris))
	for _, uri := range uris {
		k, err := a.verifyingKey(ctx, v, uri)
		if err != nil {
			return nil, err
		}
		if t, ok := k.(*vault.Key); ok && identified {
			k = t.Identified()
		}
		keys = append(keys, k)
	}
	return keys, nil
}

func (a *app) verifyingKey(ctx context.Context, v *vaultFlags, uri string) (signature.Key, error) {
	if !vault.IsKeyRef(uri) {
		return a.publicKey(uri)
	}
	ref, err := a.keyRef(uri)
	if err != nil {
		return nil, err
	}
	// What is wrong with the flags is said at once. That there is no token matters
	// only when one is needed.
	var wrong *usageError
	if _, err := a.preparedLogin(v); errors.As(err, &wrong) {
		return nil, err
	}
	return &lazyKey{app: a, flags: v, ref: ref}, nil
}

// maxKeyFile bounds a file of public keys and certificates.
const maxKeyFile = 1 << 20

// publicKey reads a PEM file or env://NAME.
func (a *app) publicKey(uri string) (signature.Key, error) {
	if name, ok := strings.CutPrefix(uri, "env://"); ok {
		pem := a.env[name]
		if pem == "" {
			return nil, &usageError{msg: fmt.Sprintf("--key %s: the variable is empty or not set", uri)}
		}
		return asKey(signature.ParsePublicKeys(uri, []byte(pem)))
	}
	if scheme, _, ok := strings.Cut(uri, "://"); ok {
		return nil, &usageError{msg: fmt.Sprintf("--key %s: unknown scheme %q", uri, scheme), hint: keyHint}
	}
	if uri == "" {
		return nil, &usageError{msg: "--key is empty", hint: keyHint}
	}
	pem, err := readFileBounded(uri, maxKeyFile)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--key: %v", err), hint: keyHint}
	}
	return asKey(signature.ParsePublicKeys(uri, pem))
}

func asKey(p *signature.PublicKeys, err error) (signature.Key, error) {
	var bad *signature.KeyFileError
	if errors.As(err, &bad) {
		return nil, &usageError{msg: bad.Error(), hint: keyHint}
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}
