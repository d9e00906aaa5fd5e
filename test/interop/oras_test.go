// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOrasListsOurSignature(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, _ := r.key(t, "", "ecdsa-p256")
		r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key)
		listed := r.discover(t, r.repo(t, "")+":v1")
		if len(listed) != 1 {
			t.Fatalf("%d referrers, want 1: %v", len(listed), listed)
		}
		if listed[0].ArtifactType != bundleType {
			t.Errorf("artifact type %q, want %q", listed[0].ArtifactType, bundleType)
		}
		const predicate = "https://sigstore.dev/cosign/sign/v1"
		if got := listed[0].Annotations["dev.sigstore.bundle.predicateType"]; got != predicate {
			t.Errorf("predicate type %q, want %q", got, predicate)
		}
	})
}

func TestOrasPullsOurFiles(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		ref := r.push(t, r.repo(t, "")+":v1")
		out := filepath.Join(r.home, "out")
		r.must(t, "tools/oras", "pull", "--plain-http", "-o", out, ref)
		sameTree(t, filepath.Join(r.home, "model"), out)
	})
}

// oras packs a directory as one tar+gzip layer.
func TestWeSignAndPullWhatOrasPushed(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		source := filepath.Join(r.home, "source")
		write(t, filepath.Join(source, "weights.bin"), []byte(strings.Repeat("weights", 1000)))
		write(t, filepath.Join(source, "tokenizer", "vocab.txt"), []byte("a\nb\n"))
		write(t, filepath.Join(source, "tokenizer", "deep", "merges ü.txt"), []byte("c\n"))
		ref := r.repo(t, "") + ":v1"
		push := r.command(t, "tools/oras", "push", "--plain-http", ref, "weights.bin", "tokenizer")
		push.Dir = source
		accepts(t, "oras push", run(t, push))

		out := filepath.Join(r.home, "out")
		r.aegis(t, exitRejected, "pull", "--key", public, "-o", out, ref)
		absent(t, out)
		r.aegis(t, exitOK, "sign", "--quiet", "--key", key, ref)
		r.aegis(t, exitOK, "pull", "--verify", "--key", public, "-o", out, ref)
		sameTree(t, source, out)
		r.aegis(t, exitOK, "verify", "--dir", out, "--key", public)
	})
}

func TestTheSignatureSurvivesOrasCopy(t *testing.T) {
	for _, way := range []struct{ name, from, to string }{
		{"from the referrers API to the tag fallback", "api", "fallback"},
		{"from the tag fallback to the referrers API", "fallback", "api"},
	} {
		t.Run(way.name, func(t *testing.T) {
			rigs := map[string]*rig{"api": withReferrers(t), "fallback": withoutReferrers(t)}
			from, to := rigs[way.from], rigs[way.to]
			key, public := from.key(t, "", "ecdsa-p256")
			from.push(t, from.repo(t, "")+":v1", "--sign", "--key", key)
			from.must(t, "tools/oras", "cp", "-r", "--from-plain-http", "--to-plain-http",
				from.repo(t, "")+":v1", to.repo(t, "-copy")+":v1")

			out := filepath.Join(to.home, "out")
			to.aegis(t, exitOK, "pull", "--verify", "--key", public, "-o", out, to.repo(t, "-copy")+":v1")
			sameTree(t, filepath.Join(from.home, "model"), out)
			accepts(t, "cosign", to.cosignVerify(t, public, to.repo(t, "-copy")+":v1"))
		})
	}
}

// A copy without -r leaves the signature behind: the model is unsigned there.
func TestACopyWithoutReferrersIsUnsigned(t *testing.T) {
	from, to := withReferrers(t), withoutReferrers(t)
	key, public := from.key(t, "", "ecdsa-p256")
	from.push(t, from.repo(t, "")+":v1", "--sign", "--key", key)
	from.must(t, "tools/oras", "cp", "--from-plain-http", "--to-plain-http",
		from.repo(t, "")+":v1", to.repo(t, "-copy")+":v1")
	out := filepath.Join(to.home, "out")
	got := to.aegis(t, exitRejected, "pull", "--key", public, "-o", out, to.repo(t, "-copy")+":v1")
	if !strings.Contains(got.stderr, "no signature attached") {
		t.Errorf("another reason:\n%s", got.stderr)
	}
	absent(t, out)
}

// Somebody changes a byte in the registry's own storage, not the size.
func TestBothRefuseALayerChangedInTheStorage(t *testing.T) {
	r := withoutReferrers(t)
	key, public := r.key(t, "", "ecdsa-p256")
	ref := r.push(t, r.repo(t, "")+":v1", "--sign", "--key", key)
	var manifest struct {
		Layers []struct {
			Digest string `json:"digest"`
			Size   int    `json:"size"`
		} `json:"layers"`
	}
	if err := json.Unmarshal([]byte(r.must(t, "tools/oras", "manifest", "fetch", "--plain-http", ref)), &manifest); err != nil {
		t.Fatal(err)
	}
	changed := 0
	for _, layer := range manifest.Layers {
		if layer.Size < 10_000 {
			continue
		}
		digest := strings.TrimPrefix(layer.Digest, "sha256:")
		file := filepath.Join(r.storage, "docker", "registry", "v2", "blobs", "sha256", digest[:2], digest, "data")
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		content[len(content)/2] ^= 1
		write(t, file, content)
		changed++
	}
	if changed != 1 {
		t.Fatalf("%d layers changed, want 1", changed)
	}
	out, theirs := filepath.Join(r.home, "out"), filepath.Join(r.home, "oras-out")
	r.aegis(t, exitRejected, "pull", "--key", public, "-o", out, ref)
	absent(t, out)
	// Again, in the same place: nothing that the first try left is trusted.
	r.aegis(t, exitRejected, "pull", "--key", public, "-o", out, ref)
	absent(t, out)
	refuses(t, "oras", run(t, r.command(t, "tools/oras", "pull", "--plain-http", "-o", theirs, ref)), "mismatched digest")
	absent(t, filepath.Join(theirs, "weights", "vad model.bin"))
}

// oras writes the time of the push into the manifest.
func TestTheSameFilesHaveTheSameDigest(t *testing.T) {
	r := withReferrers(t)
	first := r.push(t, r.repo(t, "")+":first")
	orasPush := func(tag string) string {
		push := r.command(t, "tools/oras", "push", "--plain-http", "--format", "go-template={{.digest}}", r.repo(t, "-oras")+":"+tag, "config.json")
		push.Dir = filepath.Join(r.home, "model")
		got := run(t, push)
		accepts(t, "oras push", got)
		return got.stdout
	}
	firstOras := orasPush("first")
	time.Sleep(1100 * time.Millisecond) // the time has whole seconds
	if second := r.push(t, r.repo(t, "")+":second"); second != first {
		t.Errorf("pushed twice: %s and %s", first, second)
	}
	if second := orasPush("second"); second == firstOras {
		t.Errorf("oras gives the same files the same digest, %s: the documentation says otherwise", second)
	}
}
