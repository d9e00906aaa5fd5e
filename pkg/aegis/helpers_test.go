// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// onBothRegistries runs test against a real registry with the referrers API and
// against a real one that has only the tag schema.
func onBothRegistries(t *testing.T, test func(t *testing.T, host string)) {
	t.Run("referrers-api", func(t *testing.T) { test(t, servertest.SharedStack(t).Registry) })
	t.Run("tag-schema", func(t *testing.T) {
		host, _ := servertest.Distribution(t)
		test(t, host)
	})
}

// noWait passes the time of retries and of settling at once. The budgets are
// charged with the waits all the same.
func noWait(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// newClient returns a client that does not wait between tries at the registry.
func newClient(t testing.TB, mods ...func(*aegis.Options)) *aegis.Client {
	t.Helper()
	return waitingClient(t, noWait, mods...)
}

func waitingClient(t testing.TB, sleep func(context.Context, time.Duration) error, mods ...func(*aegis.Options)) *aegis.Client {
	t.Helper()
	c, err := registry.NewClient(registry.Options{Sleep: sleep})
	if err != nil {
		t.Fatal(err)
	}
	o := aegis.Options{RetryBudget: 5 * time.Second}
	for _, m := range mods {
		m(&o)
	}
	return aegis.New(c, o)
}

// repository opens a repository beneath the workflows, to look and to tamper.
func repository(t testing.TB, ref registry.Reference) *registry.Repository {
	t.Helper()
	c, err := registry.NewClient(registry.Options{Sleep: noWait})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// name is one that no other test has, for repositories and keys.
func name(t testing.TB) string {
	return strings.Trim(notInNames.ReplaceAllString(strings.ToLower(t.Name()), "-"), "-")
}

// refTo names a tag in the test's own repository.
func refTo(t testing.TB, host, tag string) registry.Reference {
	t.Helper()
	return parse(t, host+"/"+name(t)+":"+tag)
}

func parse(t testing.TB, s string) registry.Reference {
	t.Helper()
	ref, err := registry.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// via is ref reached through a proxy.
func via(p *servertest.Proxy, ref registry.Reference) registry.Reference {
	ref.Registry = p.Addr
	return ref
}

func byDigest(ref registry.Reference, d digest.Digest) registry.Reference {
	ref.Tag, ref.Digest = "", d
	return ref
}

// modelDir writes a model of three files that differs with seed.
func modelDir(t testing.TB, seed uint64) string {
	t.Helper()
	return writeModel(t, map[string]string{
		"config.json":        fmt.Sprintf(`{"model_type": "test", "seed": %d}`, seed),
		"weights/part-1.bin": string(weights(seed, 64<<10)),
		"README.md":          "# A model\n",
	})
}

func writeModel(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for path, content := range files {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sameModel fails unless dir holds the files of want, and beside them nothing
// but the evidence.
func sameModel(t testing.TB, want, dir string) {
	t.Helper()
	read := func(root string) map[string]string {
		files := map[string]string{}
		err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				if err == nil && path == filepath.Join(root, ".aegis") {
					return filepath.SkipDir
				}
				return err
			}
			rel, _ := filepath.Rel(root, path)
			content, err := fileDigest(path)
			files[rel] = string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	a, b := read(want), read(dir)
	if fmt.Sprint(a) != fmt.Sprint(b) {
		t.Fatalf("%s holds %v, want %v", dir, b, a)
	}
}

// nothingIn fails when dir holds anything: neither the destination's name nor a
// staging directory may be left.
func nothingIn(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left behind", e.Name())
	}
}

// wantErr fails unless err is or wraps a T, and returns it.
func wantErr[T error](t testing.TB, err error) T {
	t.Helper()
	var want T
	if !errors.As(err, &want) {
		t.Fatalf("error %v (%T), want a %T", err, err, want)
	}
	return want
}

func wantRegistryErr(t testing.TB, err error, kind registry.Kind) {
	t.Helper()
	if e := wantErr[*registry.Error](t, err); e.Kind != kind {
		t.Fatalf("registry error of kind %q, want %q: %v", e.Kind, kind, err)
	}
}

func requirement(keys ...signature.Key) verify.Requirement {
	return verify.Requirement{Name: "test", Keys: keys}
}

// mustPush pushes dir, signed by key unless it is nil.
func mustPush(t testing.TB, c *aegis.Client, ref registry.Reference, dir string, key signature.Signer) aegis.PushResult {
	t.Helper()
	o := aegis.PushOptions{Ref: ref, Paths: []string{dir}}
	if key != nil {
		o.Signing = &aegis.Signing{Signer: key}
	}
	r, err := c.Push(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func ecdsaKey(t testing.TB) *testkey.Key { return testkey.New(t, signature.ECDSAP256) }

// session opens a Vault session with a token that may do nothing but what rules,
// pairs of path and capability, say.
func session(t testing.TB, addr string, rules ...string) *vault.Session {
	t.Helper()
	srv := servertest.SharedStack(t)
	policy := fmt.Sprintf("%s-%d", name(t), rand.Uint64())
	srv.Policy(t, policy, hcl(rules...))
	token := srv.Token(t, map[string]any{"policies": []string{policy}, "no_default_policy": true, "ttl": "10m"})
	return openVault(t, addr, token)
}

func hcl(rules ...string) string {
	var b strings.Builder
	for i := 0; i < len(rules); i += 2 {
		fmt.Fprintf(&b, "path %q { capabilities = [%q] }\n", rules[i], rules[i+1])
	}
	return b.String()
}

func openVault(t testing.TB, addr, token string) *vault.Session {
	t.Helper()
	s, err := vault.Open(t.Context(), vault.Config{Address: addr, Sleep: func(time.Duration, <-chan struct{}) {}}, vault.StaticToken(token, "test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

func transit(key string) vault.KeyRef { return vault.KeyRef{Mount: "transit", Name: key} }

// signOnly is a Signer whose token may do nothing but sign.
func signOnly(t testing.TB, addr, key string) *vault.Signer {
	t.Helper()
	s, err := session(t, addr, "transit/sign/"+key, "update").Signer(t.Context(), transit(key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verifyOnly is a Key whose token may do nothing but verify, and its session.
func verifyOnly(t testing.TB, key string) (*vault.Key, *vault.Session) {
	t.Helper()
	s := session(t, servertest.SharedStack(t).VaultAddr, "transit/verify/"+key, "update")
	return s.Key(transit(key)), s
}

// sequence records the requests of several proxies in one order.
type sequence struct {
	mu    sync.Mutex
	lines []string
}

// watch adds p's requests as "NAME METHOD /path".
func (s *sequence) watch(name string, p *servertest.Proxy) {
	p.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lines = append(s.lines, name+" "+r.Method+" "+r.URL.Path)
		return false
	})
}

func (s *sequence) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// first returns where a line has part, and fails when none does.
func (s *sequence) first(t testing.TB, part string) int {
	t.Helper()
	i := slices.IndexFunc(s.all(), func(l string) bool { return strings.Contains(l, part) })
	if i < 0 {
		t.Fatalf("no request has %q:\n%s", part, strings.Join(s.all(), "\n"))
	}
	return i
}

func (s *sequence) count(part string) int {
	n := 0
	for _, l := range s.all() {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

// blobOf is the digest of one file of a pushed model.
func blobOf(t testing.TB, dir, path string) digest.Digest {
	t.Helper()
	d, err := fileDigest(filepath.Join(dir, path))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pushReferrer attaches a manifest of artifactType with one layer, without the
// help of the code under test but for uploading.
func pushReferrer(t testing.TB, repo *registry.Repository, subject signature.Subject, artifactType string, layer []byte, annotations map[string]string) ocispec.Descriptor {
	t.Helper()
	raw, l := referrer(t, subject.Descriptor(), artifactType, layer, annotations)
	pushContent(t, repo, l, layer)
	pushContent(t, repo, ocispec.DescriptorEmptyJSON, []byte("{}"))
	desc, err := repo.Attach(t.Context(), subject, ocispec.MediaTypeImageManifest, raw)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func referrer(t testing.TB, subject ocispec.Descriptor, artifactType string, layer []byte, annotations map[string]string) ([]byte, ocispec.Descriptor) {
	t.Helper()
	l := ocispec.Descriptor{MediaType: artifactType, Digest: digest.FromBytes(layer), Size: int64(len(layer))}
	empty := ocispec.DescriptorEmptyJSON
	empty.Data = nil
	raw, err := json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: artifactType, Config: empty, Layers: []ocispec.Descriptor{l},
		Subject: &subject, Annotations: annotations,
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw, l
}

func pushContent(t testing.TB, repo *registry.Repository, desc ocispec.Descriptor, content []byte) {
	t.Helper()
	if _, err := repo.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }); err != nil {
		t.Fatal(err)
	}
}

// resolve is the manifest that ref names now.
func resolve(t testing.TB, ref registry.Reference) registry.Pinned {
	t.Helper()
	p, err := repository(t, ref).Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}
