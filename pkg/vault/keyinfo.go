// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/aegis-oci/aegis-oci/pkg/internal/lazyregexp"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// keyInfo is what GET MOUNT/keys/NAME says of a key that may be read.
type keyInfo struct {
	typ       string
	derived   bool
	deleted   bool
	latest    int
	minVerify int // min_decryption_version: older versions verify nothing
	minSign   int // min_encryption_version
	spki      map[int][]byte
	chain     map[int][]byte // PEM certificates, leaf first, where there are any
}

// keyType is KeyUnknown for a type that no format has a row for.
func (i *keyInfo) keyType() signature.KeyType {
	t := signature.KeyType(i.typ)
	if len(signature.Algorithms(signature.Sigstore, t)) == 0 {
		return signature.KeyUnknown
	}
	return t
}

// infoEntry remembers the one reading of a key in a session; a nil info without
// an error means that the token may not read it.
type infoEntry struct {
	once sync.Mutex
	done bool
	info *keyInfo
}

// info reads the key once in a session. nil without an error means that the
// token may not; an error means that the question could not be put, or that
// there is no such key.
func (s *Session) info(ctx context.Context, op string, ref KeyRef) (*keyInfo, error) {
	e := s.infoEntry(ref)
	e.once.Lock()
	defer e.once.Unlock()
	if e.done {
		return e.info, nil
	}
	if !s.spare(4) { // the question whether it may sign, signing, checking, revoking
		e.done = true
		return nil, nil
	}
	a, err := s.do(ctx, call{op: op, path: ref.path("keys"), namespace: s.namespace(ref), capability: "read", optional: true})
	if isRefusal(err) {
		e.done = true
		return nil, nil
	}
	if err != nil {
		return nil, missingKey(ref, err)
	}
	info, err := decodeInfo(a.Data)
	if err != nil {
		return nil, &Error{Op: op, Path: ref.path("keys"), Kind: Malformed, Detail: err.Error(), RequestID: a.RequestID}
	}
	e.done, e.info = true, info
	return info, nil
}

func (s *Session) infoEntry(ref KeyRef) *infoEntry {
	id := KeyRef{Mount: ref.Mount, Name: ref.Name, Namespace: s.namespace(ref)}.full()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.infos[id]
	if e == nil {
		e = &infoEntry{}
		s.infos[id] = e
	}
	return e
}

// knownInfo is what an earlier request has learned, nil if nothing.
func (s *Session) knownInfo(ref KeyRef) *keyInfo {
	e := s.infoEntry(ref)
	e.once.Lock()
	defer e.once.Unlock()
	return e.info
}

func (s *Session) namespace(ref KeyRef) string {
	if ref.Namespace != "" {
		return ref.Namespace
	}
	return s.cfg.Namespace
}

func decodeInfo(data json.RawMessage) (*keyInfo, error) {
	var d struct {
		Type      string                     `json:"type"`
		Derived   bool                       `json:"derived"`
		Deleted   bool                       `json:"soft_deleted"`
		Latest    int                        `json:"latest_version"`
		MinVerify int                        `json:"min_decryption_version"`
		MinSign   int                        `json:"min_encryption_version"`
		Keys      map[string]json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &d); err != nil || !typeName().MatchString(d.Type) || d.Latest < 1 || d.Latest > maxKeyVersion {
		return nil, errors.New("the key's description is not of the API's form")
	}
	info := &keyInfo{typ: d.Type, derived: d.Derived, deleted: d.Deleted, latest: d.Latest,
		minVerify: max(1, d.MinVerify), minSign: max(1, d.MinSign), spki: make(map[int][]byte), chain: make(map[int][]byte)}
	for v, raw := range d.Keys {
		version, err := strconv.Atoi(v)
		if err != nil {
			return nil, errors.New("a key version is no number")
		}
		var k struct {
			PublicKey string `json:"public_key"`
			Chain     string `json:"certificate_chain"`
		}
		// Versions of symmetric keys are bare numbers here.
		if json.Unmarshal(raw, &k) != nil || k.PublicKey == "" {
			continue
		}
		spki, err := parsePublicKey(k.PublicKey)
		if err != nil {
			return nil, fmt.Errorf("public key of version %d: %v", version, err)
		}
		info.spki[version] = spki
		if k.Chain != "" {
			info.chain[version] = []byte(k.Chain)
		}
	}
	return info, nil
}

// parsePublicKey returns the DER SubjectPublicKeyInfo of what Transit prints:
// PEM, and for Ed25519 the bare 32 bytes in base64.
func parsePublicKey(s string) ([]byte, error) {
	var pub crypto.PublicKey
	if block, _ := pem.Decode([]byte(s)); block != nil {
		var err error
		if pub, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
			return nil, errors.New("malformed PEM block")
		}
	} else {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s))
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("neither PEM nor an Ed25519 key")
		}
		pub = ed25519.PublicKey(raw)
	}
	return x509.MarshalPKIXPublicKey(pub)
}

// PublicKeys returns the public keys by version, as PEM blocks "PUBLIC KEY". It
// needs "read" on MOUNT/keys/NAME. Versions that the server has archived
// (below min_decryption_version) are not among them.
func (s *Session) PublicKeys(ctx context.Context, ref KeyRef) (map[int][]byte, error) {
	op := "read the public keys of " + ref.String()
	info, err := s.info(ctx, op, ref)
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, &Error{Op: op, Path: ref.path("keys"), Kind: Denied, Status: http.StatusForbidden, Capability: "read"}
	}
	keys := make(map[int][]byte, len(info.spki))
	for v, spki := range info.spki {
		if ref.Version == 0 || v == ref.Version {
			keys[v] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
		}
	}
	if len(keys) == 0 {
		if ref.Version != 0 && len(info.spki) > 0 {
			return nil, noVersion(op, ref, info)
		}
		return nil, unsuitable(op, ref, info.typ)
	}
	return keys, nil
}

func noVersion(op string, ref KeyRef, info *keyInfo) error {
	return &Error{Op: op, Path: ref.path("keys"), Kind: KeyNotFound,
		Detail: fmt.Sprintf("version %d is not there; the latest is %d", ref.Version, info.latest)}
}

// missingKey says which part of the reference is not there, and the command that
// makes it.
func missingKey(ref KeyRef, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Kind != KeyNotFound {
		return err
	}
	m := *e
	switch {
	case strings.Contains(e.Detail, "no handler for route"):
		m.Detail, m.Hint = "nothing is mounted at "+ref.Mount+"/", "vault secrets enable -path="+ref.Mount+" transit"
	case e.Detail == "", strings.Contains(e.Detail, "key not found"):
		m.Detail, m.Hint = "there is no key "+ref.Name+" in "+ref.Mount+"/", createCommand(ref, ref.Name)
	}
	return &m
}

// createCommand makes a key of the type that every format takes. Without a type
// Vault makes one that only encrypts.
func createCommand(ref KeyRef, name string) string {
	cmd := "vault write "
	if ref.Namespace != "" {
		cmd += "-namespace=" + ref.Namespace + " "
	}
	return cmd + ref.Mount + "/keys/" + name + " type=ecdsa-p256"
}

// unsuitable names a key type that cannot sign. The type of a key is fixed, so
// that the command must make another key.
func unsuitable(op string, ref KeyRef, typ string) *Error {
	detail := "its type cannot sign"
	if typ != "" {
		detail = "its type is " + typ
	}
	return &Error{Op: op, Path: ref.path("keys"), Kind: KeyUnsuitable,
		Detail: detail + "; the type of a key is fixed, so make another: " + createCommand(ref, ref.Name+"-signing"),
		Hint:   createCommand(ref, ref.Name+"-signing")}
}

var (
	typeName   = lazyregexp.New(`^[a-z0-9_-]{1,40}$`)
	typeInText = lazyregexp.New(`key type ([a-z0-9_-]{1,40}) does not support`)
)

// suitable says why the key cannot be used here at all, nil if it can.
func (i *keyInfo) suitable(op string, ref KeyRef) error {
	switch {
	case i.deleted:
		return &Error{Op: op, Path: ref.path("keys"), Kind: KeyUnsuitable, Detail: "it is deleted and can still be restored"}
	case i.derived:
		return &Error{Op: op, Path: ref.path("keys"), Kind: KeyUnsuitable,
			Detail: "it is a derived key, which has another public key for each context", Hint: createCommand(ref, ref.Name+"-signing")}
	case i.keyType() == signature.KeyUnknown:
		return unsuitable(op, ref, i.typ)
	}
	return nil
}

// explainKey turns the server's words about a key into an error that says what
// to do, for the token that may not read the key too.
func explainKey(ref KeyRef, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	switch e.Kind {
	case KeyUnsuitable:
		var typ string
		if m := typeInText().FindStringSubmatch(e.Detail); m != nil {
			typ = m[1]
		}
		u := unsuitable(e.Op, ref, typ)
		u.Path, u.Status, u.RequestID = e.Path, e.Status, e.RequestID
		return u
	case KeyNotFound:
		return missingKey(ref, err)
	}
	return err
}
