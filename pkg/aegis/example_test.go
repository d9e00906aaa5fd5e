// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// shop is what the examples share: a registry, a model and a key. A program has
// a registry's name instead, and the Signer and Key of package vault.
type shop struct {
	client *aegis.Client
	ref    registry.Reference
	model  string // a directory
	signer exampleSigner
	key    signature.Key
	tmp    string
	close  func()
}

func openShop() *shop {
	srv := httptest.NewServer(ociserver.New(ocimem.New(), nil))
	reg, err := registry.NewClient(registry.Options{})
	check(err)
	ref, err := registry.ParseReference(strings.TrimPrefix(srv.URL, "http://") + "/models/demo:v1")
	check(err)
	tmp, err := os.MkdirTemp("", "example")
	check(err)
	dir := filepath.Join(tmp, "source")
	check(os.Mkdir(dir, 0o755))
	check(os.WriteFile(filepath.Join(dir, "model.bin"), []byte("weights"), 0o644))
	check(os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o644))
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	check(err)
	key, err := signature.ParsePublicKeys("release.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	check(err)
	return &shop{
		client: aegis.New(reg, aegis.Options{}), ref: ref, model: dir, key: key, tmp: tmp,
		signer: exampleSigner{private, signature.KeyID{Name: "release key", Type: signature.ECDSAP256, SPKI: spki}},
		close:  func() { srv.Close(); check(os.RemoveAll(tmp)) },
	}
}

// exampleSigner is a signature.Signer over a key in memory.
type exampleSigner struct {
	key crypto.Signer
	id  signature.KeyID
}

func (s exampleSigner) ID() signature.KeyID { return s.id }

func (s exampleSigner) Sign(_ context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	out := make([]signature.Primitive, len(msgs))
	for i, m := range msgs {
		sum := sha256.Sum256(m.Bytes)
		sig, err := s.key.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil {
			return nil, err
		}
		out[i].Signature = sig
	}
	return out, nil
}

func check(err error) {
	if err != nil {
		log.Panic(err)
	}
}

func ExampleClient_Push() {
	s := openShop()
	defer s.close()
	pushed, err := s.client.Push(context.Background(), aegis.PushOptions{
		Ref:     s.ref,
		Tags:    []string{"latest"},
		Paths:   []string{s.model},
		Signing: &aegis.Signing{Signer: s.signer, Annotations: map[string]string{"stage": "prod"}},
	})
	check(err)
	fmt.Println(pushed.Files, "files, tagged", pushed.Tags)
	fmt.Println(pushed.Signatures[0].Format, pushed.Signatures[0].Key, pushed.Signatures[0].SelfVerified)
	// Output:
	// 2 files, tagged [v1 latest]
	// sigstore release key true
}

func ExampleClient_Sign() {
	s := openShop()
	defer s.close()
	ctx := context.Background()
	_, err := s.client.Push(ctx, aegis.PushOptions{Ref: s.ref, Paths: []string{s.model}})
	check(err)
	signed, err := s.client.Sign(ctx, s.ref, aegis.Signing{Signer: s.signer})
	check(err)
	fmt.Println(len(signed.Signatures), "signature by", signed.Signatures[0].Key)
	// Output: 1 signature by release key
}

func ExampleClient_Verify() {
	s := openShop()
	defer s.close()
	ctx := context.Background()
	_, err := s.client.Push(ctx, aegis.PushOptions{Ref: s.ref, Paths: []string{s.model}})
	check(err)
	trusted := verify.Requirement{Name: "release", Keys: []signature.Key{s.key}}

	_, err = s.client.Verify(ctx, s.ref, trusted)
	var unsigned *verify.NoSignatureError
	fmt.Println("unsigned:", errors.As(err, &unsigned))

	_, err = s.client.Sign(ctx, s.ref, aegis.Signing{Signer: s.signer})
	check(err)
	verified, err := s.client.Verify(ctx, s.ref, trusted)
	check(err)
	fmt.Println("verified by", verified.Signatures[0].Key)
	// Output:
	// unsigned: true
	// verified by release.pub
}

func ExampleClient_Pull() {
	s := openShop()
	defer s.close()
	ctx := context.Background()
	_, err := s.client.Push(ctx, aegis.PushOptions{Ref: s.ref, Paths: []string{s.model}, Signing: &aegis.Signing{Signer: s.signer}})
	check(err)
	dir := filepath.Join(s.tmp, "model")
	pulled, err := s.client.Pull(ctx, aegis.PullOptions{Ref: s.ref, Dir: dir}, verify.Requirement{Keys: []signature.Key{s.key}})
	check(err)
	weights, err := os.ReadFile(filepath.Join(dir, "model.bin"))
	check(err)
	fmt.Printf("%d files, verified %v: %s\n", pulled.Files, pulled.Verified, weights)
	// Output: 2 files, verified true: weights
}

func ExampleVerifyDir() {
	s := openShop()
	defer s.close()
	ctx := context.Background()
	trusted := verify.Requirement{Keys: []signature.Key{s.key}}
	_, err := s.client.Push(ctx, aegis.PushOptions{Ref: s.ref, Paths: []string{s.model}, Signing: &aegis.Signing{Signer: s.signer}})
	check(err)
	dir := filepath.Join(s.tmp, "model")
	_, err = s.client.Pull(ctx, aegis.PullOptions{Ref: s.ref, Dir: dir}, trusted)
	check(err)

	found, err := aegis.VerifyDir(ctx, aegis.VerifyDirOptions{Dir: dir}, trusted)
	check(err)
	fmt.Println(found.Files, "files are what was signed")

	check(os.WriteFile(filepath.Join(dir, "model.bin"), []byte("WEIGHTS"), 0o644))
	_, err = aegis.VerifyDir(ctx, aegis.VerifyDirOptions{Dir: dir}, trusted)
	var changed *model.DirError
	fmt.Println("changed:", errors.As(err, &changed))
	// Output:
	// 2 files are what was signed
	// changed: true
}

// A model loader opens nothing that was not verified, and can tell a model that
// was refused from one that could not be judged now.
func Example() {
	s := openShop()
	defer s.close()
	load := func(dir string) ([]byte, error) {
		trusted := verify.Requirement{Keys: []signature.Key{s.key}}
		if _, err := s.client.Pull(context.Background(), aegis.PullOptions{Ref: s.ref, Dir: dir}, trusted); err != nil {
			return nil, err
		}
		return os.ReadFile(filepath.Join(dir, "model.bin"))
	}
	_, err := s.client.Push(context.Background(), aegis.PushOptions{Ref: s.ref, Paths: []string{s.model}})
	check(err)

	_, err = load(filepath.Join(s.tmp, "model"))
	var (
		unsigned  *verify.NoSignatureError
		rejected  *verify.RejectedError
		undecided *verify.UndecidedError
	)
	switch {
	case errors.As(err, &unsigned), errors.As(err, &rejected):
		fmt.Println("refused: do not try again")
	case errors.As(err, &undecided), registry.Retryable(err):
		fmt.Println("could not tell: try later")
	case err != nil:
		fmt.Println("failed:", err)
	}
	// Output: refused: do not try again
}
