// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPackFollowsLinksInside(t *testing.T) {
	dir := packTree(t, map[string]string{"real/model.bin": "w", "run.sh!": "#!/bin/sh\n"})
	packLink(t, "real/model.bin", filepath.Join(dir, "model.bin"))
	packLink(t, filepath.Join(dir, "real", "model.bin"), filepath.Join(dir, "absolute.bin"))
	packLink(t, "model.bin", filepath.Join(dir, "chain.bin"))
	packLink(t, "run.sh", filepath.Join(dir, "start"))
	packLink(t, "../real", filepath.Join(dir, "sub", "dir"))
	p := mustPack(t, PackOptions{}, dir)
	wantPaths(t, p, "absolute.bin", "chain.bin", "model.bin", "real/model.bin", "run.sh", "start", "sub/dir/model.bin")
	if files := p.Files(); files[0].Digest != files[3].Digest || !files[5].Executable {
		t.Errorf("a link is not what it leads to: %+v", files)
	}
	if len(p.Blobs()) != 3 {
		t.Errorf("%d blobs, want 3: links share their target's", len(p.Blobs()))
	}
	link := filepath.Join(t.TempDir(), "current")
	packLink(t, dir, link)
	if q := mustPack(t, PackOptions{}, link); q.Subject() != p.Subject() {
		t.Error("a directory given through a link is another model")
	}
}

func TestPackHuggingFaceCache(t *testing.T) {
	cache := t.TempDir()
	repo := filepath.Join(cache, "models--acme--small")
	contents := map[string]string{"aaaa": "weights", "bbbb": "{}", "cccc": "more"}
	for hash, content := range contents {
		file := filepath.Join(repo, "blobs", hash)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	snapshot := filepath.Join(repo, "snapshots", "0123abcd")
	packLink(t, "../../blobs/aaaa", filepath.Join(snapshot, "model.safetensors"))
	packLink(t, "../../blobs/bbbb", filepath.Join(snapshot, "config.json"))
	packLink(t, "../../../blobs/cccc", filepath.Join(snapshot, "unet", "model.bin"))

	p := mustPack(t, PackOptions{}, snapshot)
	wantPaths(t, p, "config.json", "model.safetensors", "unet/model.bin")
	plain := packTree(t, map[string]string{"config.json": "{}", "model.safetensors": "weights", "unet/model.bin": "more"})
	if q := mustPack(t, PackOptions{}, plain); q.Subject() != p.Subject() {
		t.Error("a snapshot and a copy of it differ")
	}
	wantPaths(t, mustPack(t, PackOptions{}, filepath.Join(snapshot, "model.safetensors"), filepath.Join(snapshot, "config.json")), "config.json", "model.safetensors")
	wantPaths(t, mustPack(t, PackOptions{}, filepath.Join(snapshot, "unet")), "model.bin")

	// Only the blobs folder is beside the snapshot, not the rest of the cache.
	if err := os.WriteFile(filepath.Join(cache, "token"), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	packLink(t, "../../../token", filepath.Join(snapshot, "steal"))
	wantSourceError(t, "steal", "outside", snapshot, PackOptions{})
}

func TestPackCacheBlobsMustBeAFolder(t *testing.T) {
	repo := t.TempDir()
	secrets := packTree(t, map[string]string{"key": "secret"})
	packLink(t, secrets, filepath.Join(repo, "blobs"))
	snapshot := filepath.Join(repo, "snapshots", "rev")
	packLink(t, "../../blobs/key", filepath.Join(snapshot, "model.bin"))
	wantSourceError(t, "model.bin", "outside", snapshot, PackOptions{})
}

func wantSourceError(t *testing.T, path, reason, dir string, o PackOptions) {
	t.Helper()
	_, err := Pack(t.Context(), []string{dir}, o)
	var se *SourceError
	if !errors.As(err, &se) || se.Path != path || !strings.Contains(se.Reason, reason) {
		t.Errorf("%v, want a *SourceError for %q about %q", err, path, reason)
	}
}

func TestPackRefusesLinksOutside(t *testing.T) {
	outside := packTree(t, map[string]string{"secret": "s", "dir/inner.bin": "i"})
	packLink(t, "../secret", filepath.Join(outside, "dir", "again"))
	for name, target := range map[string]string{"file": filepath.Join(outside, "secret"), "directory": filepath.Join(outside, "dir")} {
		t.Run(name, func(t *testing.T) {
			dir := packTree(t, map[string]string{"model.bin": "w"})
			packLink(t, target, filepath.Join(dir, "out"))
			wantSourceError(t, "out", "outside", dir, PackOptions{})
			relative, err := filepath.Rel(dir, target)
			if err != nil {
				t.Fatal(err)
			}
			packLink(t, relative, filepath.Join(dir, "a"))
			wantSourceError(t, "a", "outside", dir, PackOptions{})
		})
	}
	dir := packTree(t, map[string]string{"model.bin": "w"})
	packLink(t, filepath.Join(outside, "secret"), filepath.Join(dir, "file"))
	packLink(t, filepath.Join(outside, "dir"), filepath.Join(dir, "tree"))
	wantPaths(t, mustPack(t, PackOptions{FollowOutside: true}, dir), "file", "model.bin", "tree/again", "tree/inner.bin")
	var se *SourceError
	if _, err := Pack(t.Context(), []string{filepath.Join(dir, "file")}, PackOptions{}); !errors.As(err, &se) {
		t.Errorf("a link outside given by name: %v, want a *SourceError", err)
	}
}

func TestPackRefusesLinksThatLeadNowhere(t *testing.T) {
	for name, c := range map[string]struct{ link, target, reason string }{
		"dangling":      {"gone", "nothing", "dangling"},
		"itself":        {"self", "self", "cannot be followed"},
		"its directory": {"sub/up", "..", "loop"},
		"the root":      {"here", ".", "loop"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := packTree(t, map[string]string{"model.bin": "w", "sub/x": "x"})
			packLink(t, c.target, filepath.Join(dir, filepath.FromSlash(c.link)))
			wantSourceError(t, c.link, c.reason, dir, PackOptions{})
			wantSourceError(t, c.link, c.reason, dir, PackOptions{FollowOutside: true})
		})
	}
}

func TestPackRefusesDirectoriesThatHoldEachOther(t *testing.T) {
	dir := packTree(t, map[string]string{"a/x": "x", "b/y": "y"})
	packLink(t, "../b", filepath.Join(dir, "a", "b"))
	packLink(t, "../a", filepath.Join(dir, "b", "a"))
	wantSourceError(t, "a/b/a", "loop", dir, PackOptions{})
}

// Twenty levels of two links each are a million directories.
func TestPackRefusesLinksThatMultiply(t *testing.T) {
	dir := packTree(t, map[string]string{"d20/x": "x"})
	for i := range 20 {
		for _, name := range []string{"a", "b"} {
			packLink(t, fmt.Sprintf("../d%02d", i+1), filepath.Join(dir, fmt.Sprintf("d%02d", i), name))
		}
	}
	_, err := Pack(t.Context(), []string{dir}, PackOptions{})
	var se *SourceError
	if !errors.As(err, &se) || !strings.Contains(se.Reason, "links to directories") {
		t.Errorf("%v, want a *SourceError about too many links", err)
	}
}
