// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

// listening keeps what it was asked to sign.
type listening struct {
	*testkey.Key
	heard []signature.Message
}

func (l *listening) Sign(ctx context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	l.heard = append(l.heard, msgs...)
	return l.Key.Sign(ctx, msgs)
}

// Whoever may have a file signed must not get another protocol's signature by
// offering that protocol's message as the file: a manifest that nobody meant to
// sign would have one.
func TestAMessageOfAnotherProtocolAsAFileIsNotSigned(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for _, typ := range []signature.KeyType{signature.ECDSAP256, signature.ECDSAP384} {
		k := testkey.New(t, typ)
		chain := []*x509.Certificate{k.Issue(t, testkey.Leaf(now, "models"), nil, nil)}
		target, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, []byte(`{"schemaVersion":2}`))
		if err != nil {
			t.Fatal(err)
		}
		claims := signature.Claims{SignedAt: now}
		for name, draft := range map[string]func() (signature.Draft, error){
			"DSSE":           func() (signature.Draft, error) { return sigstore.Prepare(target, claims) },
			"simple signing": func() (signature.Draft, error) { return simplesigning.Prepare(target, claims) },
			"JWS": func() (signature.Draft, error) {
				return notary.Prepare(signature.Notary, target, claims, notary.Options{Chain: chain})
			},
			"COSE": func() (signature.Draft, error) {
				return notary.Prepare(signature.NotaryCOSE, target, claims, notary.Options{Chain: chain})
			},
			"Model Signing": func() (signature.Draft, error) {
				return oms.Prepare(oms.Model{Name: "m", Files: []signature.File{{Path: "x", Digest: target.Digest()}}, Manifest: target}, claims)
			},
		} {
			t.Run(fmt.Sprintf("%s/%s", typ, name), func(t *testing.T) {
				offered, err := draft()
				if err != nil {
					t.Fatal(err)
				}
				message := offered.Message()
				signer := &listening{Key: k}
				file := filepath.Join(t.TempDir(), "offered")
				if err := os.WriteFile(file, message.Bytes, 0o644); err != nil {
					t.Fatal(err)
				}
				bundle := signLocal(t, signer, aegis.LocalOptions{Path: file, Bundle: file + ".sig"}, aegis.Signing{})

				if len(signer.heard) != 1 || signer.heard[0].Format != signature.OMS {
					t.Fatalf("the key was asked for %d messages: %+v", len(signer.heard), signer.heard)
				}
				said := signer.heard[0].Bytes
				sum := sha256.Sum256(message.Bytes)
				if bytes.Contains(said, message.Bytes) || bytes.Contains(said, sum[:]) || !bytes.HasPrefix(said, []byte("DSSEv1 ")) {
					t.Errorf("signed %q", said)
				}
				held, err := sigstore.Take(bundle)
				if err != nil {
					t.Fatal(err)
				}
				forged := signature.NewEnvelope(message.Format, message.Bytes, held.Signature, func() (signature.Statement, error) {
					return signature.Statement{Digest: target.Digest()}, nil
				})
				got := signature.Open(t.Context(), k.Public(t), []*signature.Envelope{forged})[0]
				if !errors.Is(got.Err, signature.ErrInvalid) || got.Statement.Digest != "" {
					t.Errorf("it passes for a %s signature: %+v", message.Format, got)
				}
				notOfAManifest(t, k, bundle)
			})
		}
	}
}

// notOfAManifest: a bundle over files is no signature of a manifest in either
// format that has bundles. With a P-384 key the formats differ in the hash too.
func notOfAManifest(t *testing.T, k *testkey.Key, bundle []byte) {
	t.Helper()
	for _, read := range []func([]byte) (*signature.Envelope, error){sigstore.Parse, oms.Parse} {
		env, err := read(bundle)
		if err != nil {
			t.Fatal(err)
		}
		var bad *signature.StatementError
		got := signature.Open(t.Context(), k.Public(t), []*signature.Envelope{env})[0]
		if hashDiffers := env.Format() == signature.Sigstore && k.ID().Type != signature.ECDSAP256; hashDiffers != errors.Is(got.Err, signature.ErrInvalid) ||
			hashDiffers == errors.As(got.Err, &bad) || got.Statement.Digest != "" {
			t.Errorf("as %s: %+v", env.Format(), got)
		}
	}
}
