// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	modelspec "github.com/modelpack/model-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// packTree writes files below a new directory; a name ending in "!" is executable.
func packTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		mode := os.FileMode(0o644)
		if exe, ok := strings.CutSuffix(name, "!"); ok {
			name, mode = exe, 0o755
		}
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil { // whatever the umask
			t.Fatal(err)
		}
	}
	return dir
}

func packLink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
}

func mustPack(t *testing.T, o PackOptions, paths ...string) *Packed {
	t.Helper()
	p, err := Pack(t.Context(), paths, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func packedPaths(p *Packed) []string {
	var out []string
	for _, f := range p.Files() {
		out = append(out, f.Path)
	}
	return out
}

func wantPaths(t *testing.T, p *Packed, want ...string) {
	t.Helper()
	if got := packedPaths(p); !slices.Equal(got, want) {
		t.Errorf("packed %q, want %q", got, want)
	}
}

func smallModel() map[string]string {
	return map[string]string{
		"model.safetensors":  packSafetensors(`{"w":{"dtype":"BF16","shape":[1000,2000],"data_offsets":[0,4000000]}}`),
		"config.json":        `{"architectures":["LlamaForCausalLM"],"model_type":"llama","torch_dtype":"bfloat16","transformers_version":"4.50.0"}`,
		"README.md":          "---\nlicense: apache-2.0\n---\n# small\n",
		"run.py":             "print('hi')\n",
		"tools/serve.sh!":    "#!/bin/sh\n",
		"data/train.parquet": "PAR1",
		"with space/模型.bin":  "weights",
		"empty.txt":          "",
	}
}

func TestPackOneRawLayerForEachFile(t *testing.T) {
	p := mustPack(t, PackOptions{}, packTree(t, smallModel()))
	wantPaths(t, p, "README.md", "config.json", "data/train.parquet", "empty.txt", "model.safetensors", "run.py", "tools/serve.sh", "with space/模型.bin")

	var m ocispec.Manifest
	if err := json.Unmarshal(p.Manifest(), &m); err != nil {
		t.Fatal(err)
	}
	if m.MediaType != "application/vnd.oci.image.manifest.v1+json" || m.SchemaVersion != 2 ||
		m.ArtifactType != "application/vnd.cncf.model.manifest.v1+json" || m.Config.MediaType != "application/vnd.cncf.model.config.v1+json" {
		t.Errorf("types of the manifest: %q %d %q %q", m.MediaType, m.SchemaVersion, m.ArtifactType, m.Config.MediaType)
	}
	kinds := []string{"doc", "weight.config", "dataset", "doc", "weight", "code", "code", "weight"}
	contents := smallModel()
	for i, layer := range m.Layers {
		f := p.Files()[i]
		if want := "application/vnd.cncf.model." + kinds[i] + ".v1.raw"; layer.MediaType != want || f.MediaType != want {
			t.Errorf("%s is %q, want %q", f.Path, layer.MediaType, want)
		}
		if layer.Annotations["org.cncf.model.filepath"] != f.Path || layer.Annotations["org.opencontainers.image.title"] != f.Path {
			t.Errorf("%s is named %q", f.Path, layer.Annotations)
		}
		if layer.Annotations["org.cncf.model.file.mediatype.untested"] != "false" {
			t.Errorf("%s: the kind was told by its name and is called untested", f.Path)
		}
		content := contents[f.Path]
		if f.Executable {
			content = contents[f.Path+"!"]
		}
		if layer.Digest != digest.FromString(content) || layer.Size != int64(len(content)) {
			t.Errorf("%s: descriptor %s of %d bytes", f.Path, layer.Digest, layer.Size)
		}
	}
	if got := m.Layers[6].Annotations["org.cncf.model.file.metadata+json"]; got != `{"name":"serve.sh","mode":493,"uid":0,"gid":0,"size":10,"mtime":"1970-01-01T00:00:00Z","typeflag":0}` {
		t.Errorf("metadata of an executable: %s", got)
	}
	var meta modelspec.FileMetadata
	if err := json.Unmarshal([]byte(m.Layers[0].Annotations[modelspec.AnnotationFileMetadata]), &meta); err != nil || meta.Mode != 0o644 || meta.Name != "README.md" {
		t.Errorf("metadata of a plain file: %+v, %v", meta, err)
	}
	if len(m.Annotations) != 1 || m.Annotations["org.opencontainers.image.licenses"] != "Apache-2.0" {
		t.Errorf("manifest annotations nobody asked for: %q", m.Annotations)
	}
}

func TestPackFillsTheConfig(t *testing.T) {
	p := mustPack(t, PackOptions{Name: "small", Version: "1.2"}, packTree(t, smallModel()))
	var c modelspec.Model
	if err := json.Unmarshal(p.Config(), &c); err != nil {
		t.Fatal(err)
	}
	want := modelspec.ModelConfig{Architecture: "transformer", Format: "safetensors", ParamSize: "2M", Precision: "bfloat16"}
	if c.Config != want {
		t.Errorf("config %+v, want %+v", c.Config, want)
	}
	if c.Descriptor.Name != "small" || c.Descriptor.Version != "1.2" || c.Descriptor.Family != "llama" || !slices.Equal(c.Descriptor.Licenses, []string{"Apache-2.0"}) || c.Descriptor.CreatedAt != nil {
		t.Errorf("descriptor %+v", c.Descriptor)
	}
	if len(c.ModelFS.DiffIDs) != len(p.Files()) || c.ModelFS.Type != "layers" {
		t.Fatalf("modelfs %+v", c.ModelFS)
	}
	for i, f := range p.Files() {
		if c.ModelFS.DiffIDs[i] != f.Digest {
			t.Errorf("diffIds[%d] is not the digest of %s", i, f.Path)
		}
	}
}

func TestPackOptionsWinOverWhatFilesTell(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))
	p := mustPack(t, PackOptions{
		Name: "n", Version: "v", CreatedAt: at,
		Annotations: map[string]string{"org.opencontainers.image.version": "mine", "team": "a<b>&c"},
		Details:     Details{Family: "own", ParamSize: "6.7B", Licenses: []string{"MIT"}, Authors: []string{"A", "B"}},
	}, packTree(t, smallModel()))
	var c modelspec.Model
	if err := json.Unmarshal(p.Config(), &c); err != nil {
		t.Fatal(err)
	}
	if c.Descriptor.Family != "own" || c.Config.ParamSize != "6.7B" || !slices.Equal(c.Descriptor.Licenses, []string{"MIT"}) || !c.Descriptor.CreatedAt.Equal(at) {
		t.Errorf("config %s", p.Config())
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(p.Manifest(), &m); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"org.opencontainers.image.title": "n", "org.opencontainers.image.version": "mine", "team": "a<b>&c",
		"org.opencontainers.image.licenses": "MIT", "org.opencontainers.image.authors": "A, B",
		"org.opencontainers.image.created": "2026-01-02T02:04:05Z",
	} {
		if m.Annotations[key] != want {
			t.Errorf("annotation %s is %q, want %q", key, m.Annotations[key], want)
		}
	}
}

func TestPackSameFilesSameDigest(t *testing.T) {
	first := mustPack(t, PackOptions{}, packTree(t, smallModel()))
	dir := packTree(t, smallModel())
	old := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := os.Chmod(name, info.Mode()&0o700); err != nil { // as a umask of 077 leaves it
			return err
		}
		if os.Getuid() == 0 {
			if err := os.Lchown(name, 1234, 5678); err != nil {
				return err
			}
		}
		return os.Chtimes(name, old, old)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "empty directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	second := mustPack(t, PackOptions{Concurrency: 1}, dir)
	if first.Subject() != second.Subject() {
		t.Errorf("the same files gave two digests:\n%s\n%s", first.Manifest(), second.Manifest())
	}
	if err := os.Chmod(filepath.Join(dir, "run.py"), 0o700); err != nil {
		t.Fatal(err)
	}
	if third := mustPack(t, PackOptions{}, dir); third.Subject() == first.Subject() {
		t.Error("the executable bit is not in the digest")
	}
}

func TestPackFilesInAnyOrder(t *testing.T) {
	dir := packTree(t, map[string]string{"a/one.bin": "1", "b/two.json": "{}", "c/three": "3"})
	one, two, three := filepath.Join(dir, "a/one.bin"), filepath.Join(dir, "b/two.json"), filepath.Join(dir, "c/three")
	p := mustPack(t, PackOptions{}, one, two, three)
	wantPaths(t, p, "one.bin", "three", "two.json")
	if q := mustPack(t, PackOptions{}, three, one, two); q.Subject() != p.Subject() {
		t.Error("the order of the arguments is in the digest")
	}
	together := packTree(t, map[string]string{"one.bin": "1", "two.json": "{}", "three": "3"})
	if q := mustPack(t, PackOptions{}, together); q.Subject() != p.Subject() {
		t.Error("a directory and the same files one by one differ")
	}
}

func TestPackBlobsAreWhatTheManifestNames(t *testing.T) {
	dir := packTree(t, map[string]string{"a.bin": "same", "b.bin": "same", "c.json": "{}", "e1": "", "e2": ""})
	p := mustPack(t, PackOptions{}, dir)
	blobs := p.Blobs()
	if len(p.Files()) != 5 || len(blobs) != 4 {
		t.Fatalf("%d files and %d blobs, want 5 and 4: the config and three contents", len(p.Files()), len(blobs))
	}
	if blobs[0].Path != "" || blobs[0].Descriptor.MediaType != modelspec.MediaTypeModelConfig {
		t.Errorf("the first blob is %+v, want the config", blobs[0].Descriptor)
	}
	for _, b := range blobs {
		for range 2 { // a retry opens again
			r, err := b.Open()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			if err := errors.Join(err, r.Close()); err != nil {
				t.Fatal(err)
			}
			if digest.FromBytes(content) != b.Descriptor.Digest || int64(len(content)) != b.Descriptor.Size {
				t.Errorf("blob %q is not what its descriptor says", b.Path)
			}
		}
	}
	if p.TotalSize() != 10 {
		t.Errorf("total %d bytes, want 10", p.TotalSize())
	}
	sum := sha256.Sum256(p.Manifest())
	if s := p.Subject(); s.Digest().Encoded() != digest.NewDigestFromBytes(digest.SHA256, sum[:]).Encoded() || s.Size() != int64(len(p.Manifest())) {
		t.Errorf("subject %v is not the manifest's", s)
	}
}

type packProgress struct {
	mu    sync.Mutex
	total map[string]int64
	added map[string]int64
	done  map[string]int
	plans []int64
}

func (p *packProgress) Plan(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.plans = append(p.plans, total)
}

func (p *packProgress) Start(name string, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total[name] = total
}

func (p *packProgress) Add(name string, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.added[name] += n
}

func (p *packProgress) Done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done[name]++
}

func TestPackTellsProgress(t *testing.T) {
	dir := packTree(t, map[string]string{"a.bin": strings.Repeat("x", 3<<20), "b/c.bin": "y"})
	progress := &packProgress{total: map[string]int64{}, added: map[string]int64{}, done: map[string]int{}}
	mustPack(t, PackOptions{Progress: progress}, dir)
	for name, size := range map[string]int64{"a.bin": 3 << 20, "b/c.bin": 1} {
		if progress.total[name] != size || progress.added[name] != size || progress.done[name] != 1 {
			t.Errorf("%s: total %d, added %d, done %d times", name, progress.total[name], progress.added[name], progress.done[name])
		}
	}
	if !slices.Equal(progress.plans, []int64{3<<20 + 1}) {
		t.Errorf("the whole was told as %d", progress.plans)
	}
}

func TestPackStopsWhenCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := packTree(t, map[string]string{"a.bin": strings.Repeat("x", 8<<20)})
	_, err := Pack(ctx, []string{dir}, PackOptions{Progress: &cancelOnAdd{cancel: cancel}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled while hashing: %v, want context.Canceled", err)
	}
	if _, err := Pack(ctx, []string{dir}, PackOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled before the start: %v, want context.Canceled", err)
	}
}

type cancelOnAdd struct {
	noProgress
	cancel func()
}

func (c *cancelOnAdd) Add(string, int64) { c.cancel() }

func TestPackRefusesAManifestThatIsTooLarge(t *testing.T) {
	long := strings.Repeat("n", 200)
	sources := make([]File, 0, 6000)
	for i := range cap(sources) {
		sources = append(sources, File{Path: long + string(rune('a'+i%26)) + digest.FromString(string(rune(i))).Encoded(), Kind: Code, MediaType: Code.mediaType()})
	}
	_, err := newPacked(sources, Details{}, &PackOptions{})
	var tooMany *TooManyFilesError
	if !errors.As(err, &tooMany) || tooMany.Files != len(sources) || tooMany.Size <= signature.MaxManifestSize {
		t.Errorf("%v, want a *TooManyFilesError", err)
	}
}

// A tree of more files than fit is refused while it is walked, before one byte
// was hashed.
func TestPackRefusesTooManyFilesBeforeHashing(t *testing.T) {
	dir := t.TempDir()
	for i := range maxSourceFiles + 1 {
		if err := os.WriteFile(filepath.Join(dir, "f"+digest.FromString(string(rune(i))).Encoded()[:20]), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	progress := &packProgress{total: map[string]int64{}, added: map[string]int64{}, done: map[string]int{}}
	_, err := Pack(t.Context(), []string{dir}, PackOptions{Progress: progress})
	var tooMany *TooManyFilesError
	if !errors.As(err, &tooMany) || len(progress.total) != 0 {
		t.Errorf("%v after hashing %d files, want a *TooManyFilesError before any", err, len(progress.total))
	}
}
