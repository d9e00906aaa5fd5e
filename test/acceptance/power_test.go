// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance && linux

package acceptance

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// powered is a file system whose power can be lost: it is in an image on a volume that
// clones, and a clone of the image is what its disk holds at that moment.
type powered struct {
	image, dir string
	cuts       int
}

func newPowered(t *testing.T, size int64) *powered {
	t.Helper()
	host := volumeOf(t, 4<<30, "mkfs.btrfs", "btrfs-progs")
	p := &powered{image: filepath.Join(host, "image"), dir: t.TempDir()}
	makeVolume(t, p.image, size, "mkfs.ext4", "e2fsprogs")
	t.Cleanup(mount(t, p.dir, "-o", "loop", p.image))
	return p
}

// cut returns an image of what would be on the disk had the power been lost now: nothing
// that is only in memory, and each write that the device has taken.
func (p *powered) cut(t *testing.T) (image string) {
	t.Helper()
	p.cuts++
	image = fmt.Sprintf("%s-%d", p.image, p.cuts)
	if out, err := exec.Command("cp", "--reflink=always", p.image, image).CombinedOutput(); err != nil {
		t.Fatalf("clone: %v\n%s", err, out)
	}
	return image
}

// after mounts what is left after a cut, whose journal is replayed.
func after(t *testing.T, image string, look func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	defer os.Remove(image)
	defer mount(t, dir, "-o", "loop", image)()
	look(dir)
}

// some removes all but a few of the images: the last ones, when files get their names, and
// a few of the others.
func some(t *testing.T, images []string) (kept []string) {
	t.Helper()
	const last, others = 12, 6
	early := max(0, len(images)-last)
	for i, image := range images {
		if i >= early || i%(early/others+1) == 0 {
			kept = append(kept, image)
		} else if err := os.Remove(image); err != nil {
			t.Error(err)
		}
	}
	return kept
}

// files are the files of a model, name to content.
type files map[string][]byte

func random(size int) []byte {
	b := make([]byte, size)
	_, _ = rand.Read(b)
	return b
}

// modelLayout writes a model of a large file, small ones, and an archive of both as an
// OCI image layout.
func modelLayout(t *testing.T) (dir string, content files) {
	t.Helper()
	dir, content = t.TempDir(), make(files)
	blob := func(mediaType string, b []byte, annotations map[string]string) ocispec.Descriptor {
		t.Helper()
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b)), Annotations: annotations}
		name := filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/vnd.cncf.model.manifest.v1+json", Config: ocispec.DescriptorEmptyJSON}
	blob(ocispec.MediaTypeEmptyJSON, []byte("{}"), nil)
	raw := func(name string, size int) {
		content[name] = random(size)
		m.Layers = append(m.Layers, blob("application/vnd.cncf.model.weight.v1.raw", content[name], map[string]string{"org.cncf.model.filepath": name}))
	}
	raw("model.safetensors", 24<<20)
	for i := range 6 {
		raw(fmt.Sprintf("parts/%d/part.bin", i), 3000+i)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for i := range 8 {
		name := fmt.Sprintf("data/%d.bin", i)
		content[name] = random([]int{2000, 200 << 10, 3 << 20}[i%3])
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content[name]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	m.Layers = append(m.Layers, blob("application/vnd.cncf.model.dataset.v1.tar", archive.Bytes(), map[string]string{"org.cncf.model.filepath": "data"}))
	write := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	top := blob(ocispec.MediaTypeImageManifest, write(m), map[string]string{ocispec.AnnotationRefName: "v1"})
	for name, v := range map[string]any{
		ocispec.ImageLayoutFile: ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion},
		ocispec.ImageIndexFile:  ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{top}},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), write(v), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, content
}

// TestALossOfPowerLeavesNoPartialFile: whenever the power is lost in a pull, what has its
// final name then is whole, and what has a receipt is a whole model; run again, it ends well.
// Once a pull or a copy has ended, its result outlives a loss of power.
func TestALossOfPowerLeavesNoPartialFile(t *testing.T) {
	t.Parallel()
	v := newCIVault(t)
	const key = "hashivault://aegis-model-sign"
	env, repo := v.job(t, "power"), v.host+"/models/power"
	content := make(map[string]files)
	for _, tag := range []string{"v1", "v2"} {
		dir, of := modelLayout(t)
		content[tag] = of
		aegis(t, env, 0, "copy", "-q", "--from-oci-layout", dir+":v1", repo+":"+tag)
		aegis(t, env, 0, "sign", "-q", "--key", key, repo+":"+tag)
	}
	disk := newPowered(t, 512<<20)

	// run runs a command and returns what was on the disk at moments of it, and right
	// after its end.
	run := func(t *testing.T, args ...string) (cuts []string, last string) {
		t.Helper()
		cmd := command(t, env, args...)
		var log bytes.Buffer
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatalf("%v\n%s", err, log.String())
				}
				return some(t, cuts), disk.cut(t)
			default:
				cuts = append(cuts, disk.cut(t))
			}
		}
	}
	verified := func(t *testing.T, dir string) {
		t.Helper()
		aegis(t, env, 0, "verify", "-q", "--key", key, "--dir", dir)
	}
	// look finds files that are not one of the models'.
	look := func(t *testing.T, dir string, models ...files) (seen int) {
		t.Helper()
		if _, err := os.Stat(filepath.Join(dir, ".aegis", "receipt.json")); err == nil {
			verified(t, dir)
		}
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			name, _ := filepath.Rel(dir, path)
			switch {
			case os.IsNotExist(err):
				return nil
			case err != nil:
				return err
			case e.IsDir() && strings.HasPrefix(e.Name(), ".aegis"), name == "lost+found":
				return filepath.SkipDir
			case e.IsDir():
				return nil
			}
			got, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			seen++
			for _, m := range models {
				if bytes.Equal(m[filepath.ToSlash(name)], got) {
					return nil
				}
			}
			t.Errorf("%s has %d bytes of sum %x", name, len(got), sha256.Sum256(got))
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		return seen
	}

	for _, c := range []struct {
		name, tag, dst string
		models         []files
		flags          []string
	}{
		{"new", "v1", "new", []files{content["v1"]}, nil},
		{"into an empty directory", "v1", "empty", []files{content["v1"]}, nil},
		{"replaced", "v2", "new", []files{content["v1"], content["v2"]}, []string{"--replace"}},
		{"replaced inside", "v2", "empty", []files{content["v1"], content["v2"]}, []string{"--replace"}},
		{"through a cache", "v1", "cached", []files{content["v1"]}, []string{"--cache"}},
		{"linked", "v2", "cached", []files{content["v1"], content["v2"]}, []string{"--replace", "--link", "--cache"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.dst == "empty" && c.tag == "v1" {
				if err := os.Mkdir(filepath.Join(disk.dir, c.dst), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			pull := func(dir string, flags ...string) []string {
				args := append([]string{"pull", "-q", "--key", key, "-o", filepath.Join(dir, c.dst)}, flags...)
				for _, flag := range c.flags {
					if args = append(args, flag); flag == "--cache" {
						args = append(args, filepath.Join(dir, "cache"))
					}
				}
				return append(args, repo+":"+c.tag)
			}
			whole := func(t *testing.T, dir string) {
				t.Helper()
				verified(t, filepath.Join(dir, c.dst))
				if n := look(t, filepath.Join(dir, c.dst), content[c.tag]); n != len(content[c.tag]) {
					t.Errorf("%d of %d files", n, len(content[c.tag]))
				}
			}
			cuts, last := run(t, pull(disk.dir, "--limit-rate", "40M")...)
			for i, image := range cuts {
				after(t, image, func(dir string) {
					look(t, filepath.Join(dir, c.dst), c.models...)
					if i%4 == 0 {
						aegis(t, env, 0, pull(dir)...)
						whole(t, dir)
					}
				})
			}
			after(t, last, func(dir string) { whole(t, dir) })
		})
	}
	for _, layout := range []string{"layout", "layout.tar"} {
		t.Run(layout, func(t *testing.T) {
			_, last := run(t, "copy", "-q", "--to-oci-layout", repo+":v1", filepath.Join(disk.dir, layout)+":v1")
			after(t, last, func(dir string) {
				aegis(t, env, 0, "pull", "-q", "--key", key, "--oci-layout", "-o", filepath.Join(dir, "out"), filepath.Join(dir, layout)+":v1")
				if n := look(t, filepath.Join(dir, "out"), content["v1"]); n != len(content["v1"]) {
					t.Errorf("%d of %d files", n, len(content["v1"]))
				}
			})
		})
	}
}
