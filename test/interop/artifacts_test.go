// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const omsPredicate = "https://model_signing/signature/v1.0"

// allFormats are the formats that are referrers: oras cp -r takes them along.
var allFormats = []string{"notary", "notary-cose", "oms", "sigstore"}

func TestOrasDiscoversEveryFormatByItsType(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		r.certificate(t, key)
		ref := r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key, "--signature-format", strings.Join(allFormats, ","))
		got := []string{}
		for _, d := range r.discover(t, ref) {
			got = append(got, d.ArtifactType+" "+d.Annotations["dev.sigstore.bundle.predicateType"])
		}
		const notary = "application/vnd.cncf.notary.signature "
		want := []string{notary, notary, bundleType + " " + omsPredicate, bundleType + " https://sigstore.dev/cosign/sign/v1"}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("oras discover lists\n%q, want\n%q", got, want)
		}
	})
}

// A .sig is a tag of its own, and has to be copied as one.
func TestEveryFormatSurvivesOrasCopy(t *testing.T) {
	for _, way := range []string{"to the tag fallback", "to the referrers API"} {
		t.Run(way, func(t *testing.T) {
			from, to := withReferrers(t), withoutReferrers(t)
			if way == "to the referrers API" {
				from, to = to, from
			}
			key, public := from.key(t, "", "ecdsa-p256")
			from.certificate(t, key)
			ref := from.push(t, from.repo(t, "")+":v1", "--sign", "--key", key, "--signature-format", strings.Join(append([]string{"cosign-tag"}, allFormats...), ","))
			target := to.repo(t, "-copy") + ":v1"
			copied := func(from, to string) []string {
				return []string{"cp", "-r", "--from-plain-http", "--to-plain-http", from, to}
			}
			from.must(t, "tools/oras", copied(from.repo(t, "")+":v1", target)...)
			if got := to.accepted(t, public, target); !slices.Equal(got, allFormats) {
				t.Errorf("accepted after the copy: %v, want %v", got, allFormats)
			}
			out := filepath.Join(to.home, "out")
			to.aegis(t, exitOK, "pull", "--verify", "--key", public, "-o", out, target)
			sameTree(t, filepath.Join(from.home, "model"), out)
			sig := ":" + strings.Replace(ref[strings.Index(ref, "@")+1:], ":", "-", 1) + ".sig"
			from.must(t, "tools/oras", copied(from.repo(t, "")+sig, to.repo(t, "-copy")+sig)...)
			if got := to.accepted(t, public, target); !slices.Contains(got, "cosign-tag") {
				t.Errorf("accepted after the copy of the tag: %v", got)
			}
		})
	}
}

// accepted lists the formats of the accepted signatures, sorted.
func (r *rig) accepted(t *testing.T, public, ref string) []string {
	t.Helper()
	got := r.aegis(t, exitOK, "inspect", "--quiet", "--key", public, "--format",
		`go-template={{range .signatures}}{{if eq .status "accepted"}}{{.format}} {{end}}{{end}}`, ref)
	formats := strings.Fields(got.stdout)
	slices.Sort(formats)
	return formats
}

// modctl keeps its files in the rig's home.
func (r *rig) modctl(t *testing.T, args ...string) {
	t.Helper()
	r.must(t, "tools/modctl", append(args, "--no-progress", "--storage-dir", filepath.Join(r.home, "modctl"), "--log-dir", filepath.Join(r.home, "modctl-log"))...)
}

func TestModctlPullsOurModel(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key)
		out := filepath.Join(r.home, "out")
		r.modctl(t, "pull", r.repo(t, "")+":v1", "--plain-http", "--extract-from-remote", "--extract-dir", out)
		sameTree(t, filepath.Join(r.home, "model"), out)
	})
}

// sources are files that every packer knows what to do with.
func sources(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "config.json"), []byte(`{"architectures":["silero-vad"]}`))
	write(t, filepath.Join(dir, "model.safetensors"), bytes.Repeat([]byte("weights"), 3000))
	write(t, filepath.Join(dir, "tokenizer", "vocab.txt"), []byte("a\nb\n"))
}

// signedAndPulled signs what another program has pushed, and pulls it: before it
// is signed, nothing is written.
func (r *rig) signedAndPulled(t *testing.T, ref, source string) {
	t.Helper()
	key, public := r.key(t, "", "ecdsa-p256")
	out := filepath.Join(r.home, "out")
	got := r.aegis(t, exitRejected, "pull", "--key", public, "-o", out, ref)
	if !strings.Contains(got.stderr, "no signature attached") {
		t.Errorf("another reason:\n%s", got.stderr)
	}
	absent(t, out)
	r.aegis(t, exitOK, "sign", "--quiet", "--key", key, ref)
	r.aegis(t, exitOK, "pull", "--verify", "--key", public, "-o", out, ref)
	sameTree(t, source, out)
}

func TestWeSignAndPullWhatModctlPushed(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		source, ref := filepath.Join(r.home, "source"), r.repo(t, "")+":v1"
		sources(t, source)
		r.modctl(t, "modelfile", "generate", source, "--output", r.home)
		r.modctl(t, "build", source, "-f", filepath.Join(r.home, "Modelfile"), "-t", ref, "--plain-http")
		r.modctl(t, "push", ref, "--plain-http")
		r.signedAndPulled(t, ref, source)
	})
}

// KitOps packs each part of its Kitfile as a tar, whose names begin at the
// Kitfile's directory, and names no layer. There is no kit program to be had as a
// Go module: what it writes is written here, down to the tar's owner and times.
func TestWeSignAndPullTheLayoutOfKitOps(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		source, repo := filepath.Join(r.home, "source"), r.repo(t, "")
		sources(t, source)
		layers := []any{
			r.blob(t, repo, "application/vnd.kitops.modelkit.model.v1.tar+gzip", kitTar(t, true, "model.safetensors", bytes.Repeat([]byte("weights"), 3000))),
			r.blob(t, repo, "application/vnd.kitops.modelkit.docs.v1.tar", kitTar(t, false, "tokenizer/vocab.txt", []byte("a\nb\n"))),
			r.blob(t, repo, "application/vnd.kitops.modelkit.code.v1.tar+gzip", kitTar(t, true, "config.json", []byte(`{"architectures":["silero-vad"]}`))),
		}
		config := r.blob(t, repo, "application/vnd.kitops.modelkit.config.v1+json",
			[]byte(`{"manifestVersion":"1.0.0","package":{"name":"vad"},"model":{"name":"vad","path":"model.safetensors"},"code":[{"path":"config.json"}],"docs":[{"path":"tokenizer/vocab.txt"}]}`))
		manifest, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "manifest.json")
		write(t, file, manifest)
		r.must(t, "tools/oras", "manifest", "push", "--plain-http", repo+":v1", file)
		r.signedAndPulled(t, repo+":v1", source)
	})
}

// blob pushes content and returns its descriptor.
func (r *rig) blob(t *testing.T, repo, mediaType string, content []byte) map[string]any {
	t.Helper()
	file := filepath.Join(t.TempDir(), "blob")
	write(t, file, content)
	r.must(t, "tools/oras", "blob", "push", "--plain-http", repo, file)
	return map[string]any{"mediaType": mediaType, "digest": fmt.Sprintf("sha256:%x", sha256.Sum256(content)), "size": len(content)}
}

func kitTar(t *testing.T, compress bool, name string, content []byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := tar.NewWriter(&packed)
	if dir := filepath.Dir(name); dir != "." {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Uid: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: 0o644, Uid: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !compress {
		return packed.Bytes()
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(packed.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return zipped.Bytes()
}
