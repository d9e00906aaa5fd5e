// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
)

func files(contents map[string]string) []signature.File {
	var out []signature.File
	for p, c := range contents {
		out = append(out, signature.File{Path: p, Digest: digest.FromString(c)})
	}
	return out
}

var contents = map[string]string{"a/x": "1", "a-b/x": "2", "config.json": "{}", "ä/ü.bin": "utf-8", "empty": ""}

func sign(t testing.TB, k signature.Signer, m oms.Model) signature.Attachment {
	t.Helper()
	d, err := oms.Prepare(m, signature.Claims{SignedAt: time.Now(), Annotations: map[string]string{"env": "prod"}})
	if err != nil {
		t.Fatal(err)
	}
	made, err := signature.Sign(context.Background(), k, d)
	if err != nil {
		t.Fatal(err)
	}
	return made[0]
}

// modelSigningVerify is what model_signing 1.1 does for "verify key", written
// again from its rules and with nothing of this package: bundle v0.3, hint,
// PAE, hash by curve, one subject, root over the recorded order, files on disk.
func modelSigningVerify(dir string, bundle, publicPEM []byte, ignore []string) error {
	var b struct {
		MediaType string `json:"mediaType"`
		Material  struct {
			PublicKey struct {
				Hint string `json:"hint"`
			} `json:"publicKey"`
		} `json:"verificationMaterial"`
		DSSE struct {
			Payload    string                 `json:"payload"`
			Type       string                 `json:"payloadType"`
			Signatures []struct{ Sig string } `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(bundle, &b); err != nil {
		return err
	}
	hint := sha256.Sum256(publicPEM)
	if h := b.Material.PublicKey.Hint; h != "" && h != hex.EncodeToString(hint[:]) {
		return errors.New("the hint is of another key")
	}
	if b.MediaType != "application/vnd.dev.sigstore.bundle.v0.3+json" || b.DSSE.Type != "application/vnd.in-toto+json" || len(b.DSSE.Signatures) != 1 {
		return errors.New("not such a bundle")
	}
	payload, err := base64.StdEncoding.DecodeString(b.DSSE.Payload)
	if err != nil {
		return err
	}
	sig, err := base64.StdEncoding.DecodeString(b.DSSE.Signatures[0].Sig)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(publicPEM)
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	pub, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return errors.New("not an EC key")
	}
	h := map[int]func() hash.Hash{256: sha256.New, 384: sha512.New384, 521: sha512.New}[pub.Params().BitSize]()
	fmt.Fprintf(h, "DSSEv1 %d %s %d %s", len(b.DSSE.Type), b.DSSE.Type, len(payload), payload)
	if !ecdsa.VerifyASN1(pub, h.Sum(nil), sig) {
		return errors.New("the signature is wrong")
	}
	return modelSigningFiles(dir, payload, ignore)
}

func modelSigningFiles(dir string, payload []byte, ignore []string) error {
	var st struct {
		Subject []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
		PredicateType string `json:"predicateType"`
		Predicate     struct {
			Serialization struct {
				Method string `json:"method"`
			} `json:"serialization"`
			Resources []struct{ Name, Algorithm, Digest string } `json:"resources"`
		} `json:"predicate"`
	}
	if err := json.Unmarshal(payload, &st); err != nil {
		return err
	}
	if st.PredicateType != "https://model_signing/signature/v1.0" || len(st.Subject) != 1 || st.Predicate.Serialization.Method != "files" {
		return errors.New("another statement")
	}
	root := sha256.New()
	signed := map[string]string{}
	var order []string
	for _, r := range st.Predicate.Resources {
		raw, err := hex.DecodeString(r.Digest)
		if err != nil || r.Algorithm != "sha256" {
			return errors.New("a digest of another form")
		}
		root.Write(raw)
		signed[r.Name] = r.Digest
		order = append(order, r.Name)
	}
	if hex.EncodeToString(root.Sum(nil)) != st.Subject[0].Digest["sha256"] {
		return errors.New("the subject is not the root of the resources")
	}
	sorted := slices.Clone(order)
	slices.SortFunc(sorted, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	if !slices.Equal(sorted, order) {
		return fmt.Errorf("not sorted by components: %q", order)
	}
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, p)
		if err != nil || d.IsDir() || slices.Contains(ignore, filepath.ToSlash(rel)) {
			return err
		}
		content, err := os.ReadFile(p)
		sum := sha256.Sum256(content)
		found[filepath.ToSlash(rel)] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		return err
	}
	if fmt.Sprint(found) != fmt.Sprint(signed) {
		return fmt.Errorf("the files are %v, signed are %v", found, signed)
	}
	return nil
}

func TestModelSigningsRulesAcceptOurs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for p, c := range contents {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, p)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, p), []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, typ := range []signature.KeyType{signature.ECDSAP256, signature.ECDSAP384, signature.ECDSAP521} {
		k, other := testkey.New(t, typ), testkey.New(t, typ)
		a := sign(t, k, oms.Model{Name: "m", Files: files(contents)})
		if err := modelSigningVerify(dir, a.Envelope, k.PEM(), nil); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		if err := modelSigningVerify(dir, a.Envelope, other.PEM(), nil); err == nil || !strings.Contains(err.Error(), "hint") {
			t.Errorf("%s, another key: %v", typ, err)
		}
		env, err := oms.ParseFiles(a.Envelope)
		if err != nil {
			t.Fatal(err)
		}
		got := signature.Open(context.Background(), k.Public(t), []*signature.Envelope{env})[0]
		if got.Err != nil || len(got.Statement.Files) != len(contents) || got.Statement.Claims.Annotations["env"] != "prod" || got.Statement.Digest != "" {
			t.Errorf("%s: %+v", typ, got)
		}
	}
}

// The order and the root, fixed: "a/x" stands before "a-b/x".
func TestStatementVector(t *testing.T) {
	t.Parallel()
	d, err := oms.Prepare(oms.Model{Name: "m", Files: files(map[string]string{"a-b/x": "2", "a/x": "1"}), Ignored: []string{"z", "b"}}, signature.Claims{})
	if err != nil {
		t.Fatal(err)
	}
	one, two := sha256.Sum256([]byte("1")), sha256.Sum256([]byte("2"))
	root := sha256.Sum256(append(one[:], two[:]...))
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":"` + hex.EncodeToString(root[:]) + `"}}],` +
		`"predicateType":"https://model_signing/signature/v1.0","predicate":{"serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"ignore_paths":["b","z"]},` +
		`"resources":[{"name":"a/x","algorithm":"sha256","digest":"` + hex.EncodeToString(one[:]) + `"},{"name":"a-b/x","algorithm":"sha256","digest":"` + hex.EncodeToString(two[:]) + `"}]}}`
	if got := string(d.Message().Bytes); got != fmt.Sprintf("DSSEv1 28 application/vnd.in-toto+json %d %s", len(want), want) {
		t.Errorf("message\n%s\nwant\n%s", got, want)
	}
}

func TestPrepareRefusesFiles(t *testing.T) {
	t.Parallel()
	one := digest.FromString("1")
	for name, list := range map[string][]signature.File{
		"none":         nil,
		"twice":        {{Path: "a", Digest: one}, {Path: "a", Digest: one}},
		"outside":      {{Path: "../a", Digest: one}},
		"absolute":     {{Path: "/a", Digest: one}},
		"not clean":    {{Path: "a//b", Digest: one}},
		"empty":        {{Path: "", Digest: one}},
		"a dot beside": {{Path: ".", Digest: one}, {Path: "a", Digest: one}},
		"sha512":       {{Path: "a", Digest: digest.SHA512.FromString("1")}},
	} {
		var bad *oms.ModelError
		if d, err := oms.Prepare(oms.Model{Name: "m", Files: list}, signature.Claims{}); !errors.As(err, &bad) || d != nil {
			t.Errorf("%s: %v, %v", name, d, err)
		}
	}
}

// manyFiles have names of 45 bytes.
func manyFiles(n int) []signature.File {
	list := make([]signature.File, n)
	for i := range list {
		list[i] = signature.File{Path: fmt.Sprintf("weights/layer-%05d/model-of-some-size.safetensors", i)[:45], Digest: digest.FromString(strconv.Itoa(i))}
	}
	return list
}

// What is made can be read again, and what could not be is refused before a key
// is asked.
func TestAListOfFilesIsBoundedByTheEnvelope(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP521)
	a := sign(t, k, oms.Model{Name: "m", Files: manyFiles(5000)})
	if len(a.Envelope) > signature.MaxEnvelopeSize {
		t.Errorf("an envelope of %d bytes", len(a.Envelope))
	}
	env, err := oms.ParseFiles(a.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	got := signature.Open(t.Context(), k.Public(t), []*signature.Envelope{env})[0]
	if got.Err != nil || len(got.Statement.Files) != 5000 {
		t.Errorf("%d files, %v", len(got.Statement.Files), got.Err)
	}
	var bad *oms.ModelError
	if d, err := oms.Prepare(oms.Model{Name: "m", Files: manyFiles(5200)}, signature.Claims{}); !errors.As(err, &bad) || d != nil {
		t.Errorf("%v, %v", d, err)
	}
}

// Every one of these is properly signed: what is refused is what it says.
func TestOpenRefusesStatements(t *testing.T) {
	t.Parallel()
	k := testkey.New(t, signature.ECDSAP256)
	one := digest.FromString("1").Encoded()
	raw, _ := hex.DecodeString(one)
	sum := sha256.Sum256(raw)
	good := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":"` + hex.EncodeToString(sum[:]) + `"}}],"predicateType":"https://model_signing/signature/v1.0",` +
		`"predicate":{"serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"ignore_paths":[]},"resources":[{"name":"a","algorithm":"sha256","digest":"` + one + `"}],"extra":1}}`
	replace := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	bundle := func(payload string) []byte {
		p, err := k.Sign(context.Background(), []signature.Message{{Format: signature.OMS, Bytes: sigstore.PAE([]byte(payload))}})
		if err != nil {
			t.Fatal(err)
		}
		b, err := sigstore.Bundle([]byte(payload), p[0].Signature, "")
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ask := func(parse func([]byte) (*signature.Envelope, error), payload string) signature.Opened {
		env, err := parse(bundle(payload))
		if err != nil {
			t.Fatal(err)
		}
		return signature.Open(context.Background(), k.Public(t), []*signature.Envelope{env})[0]
	}
	if got := ask(oms.ParseFiles, good); got.Err != nil || len(got.Statement.Files) != 1 {
		t.Fatalf("the good one: %+v", got)
	}
	var bad *signature.StatementError
	if got := ask(oms.Parse, good); !errors.As(got.Err, &bad) || !strings.Contains(got.Err.Error(), "names no manifest") {
		t.Errorf("as a manifest's signature: %+v", got)
	}
	for name, payload := range map[string]string{
		"cosign's predicate":  replace("https://model_signing/signature/v1.0", sigstore.PredicateType),
		"another type":        replace("Statement/v1", "Statement/v0.1"),
		"shards":              replace(`"files"`, `"shards"`),
		"blake2b":             replace(`"hash_type":"sha256"`, `"hash_type":"blake2b"`),
		"symbolic links":      replace(`"allow_symlinks":false`, `"allow_symlinks":true`),
		"another root":        replace(hex.EncodeToString(sum[:]), one),
		"two subjects":        replace(`"subject":[`, `"subject":[{"name":"x","digest":{}},`),
		"a path outside":      replace(`"name":"a"`, `"name":"../a"`),
		"an upper-case hash":  replace(one, strings.ToUpper(one)),
		"another algorithm":   replace(`"algorithm":"sha256"`, `"algorithm":"sha512"`),
		"no resources":        replace(`"resources":[`, `"resources":[],"x":[`),
		"duplicate resources": replace(`"resources":`, `"resources":[],"resources":`),
		"a wrong manifest":    replace(`"extra":1`, `"dev.aegis-oci.manifest":{"mediaType":"x","digest":"sha256:00","size":1}`),
		"no expiry to read":   replace(`"extra":1`, `"dev.aegis-oci.claims":{"dev.aegis-oci.claim.expires":"never"}`),
	} {
		if got := ask(oms.ParseFiles, payload); !errors.As(got.Err, &bad) || got.Statement.Files != nil {
			t.Errorf("%s: %+v, want a StatementError", name, got)
		}
	}
}

// anySignature accepts: what is fuzzed is what the holder of a key may sign. A
// real signature differs from run to run, which keeps the fuzzer from learning.
type anySignature struct{ signature.Key }

func (anySignature) Check(_ context.Context, checks []signature.Check) []signature.Verdict {
	return make([]signature.Verdict, len(checks))
}

func FuzzStatement(f *testing.F) {
	k := testkey.New(f, signature.ECDSAP256)
	a := sign(f, k, oms.Model{Name: "m", Files: files(contents)})
	content, err := sigstore.Take(a.Envelope)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(content.Payload)
	for _, v := range vectors.Load(f, vectors.Dir(f)) {
		for _, envelope := range v.Envelopes(f) {
			if content, err := sigstore.Take(envelope); err == nil {
				f.Add(content.Payload)
			}
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		b, err := sigstore.Bundle(payload, []byte("signature"), "")
		if err != nil {
			return
		}
		env, err := oms.ParseFiles(b)
		if err != nil {
			return
		}
		got := signature.Open(context.Background(), anySignature{}, []*signature.Envelope{env})[0]
		if got.Err != nil {
			return
		}
		for _, file := range got.Statement.Files {
			if !filepath.IsLocal(file.Path) || file.Digest.Validate() != nil {
				t.Errorf("file %+v", file)
			}
		}
	})
}
