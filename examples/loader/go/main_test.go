// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const config = `{"model_type": "test"}`

// push puts a model of one file under a tag, signed by key unless it is nil.
func push(t *testing.T, tag string, key signature.Signer) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(servertest.SharedStack(t).Registry + "/loader:" + tag)
	if err != nil {
		t.Fatal(err)
	}
	client, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	// An annotation of its own gives each tag a digest of its own.
	o := aegis.PushOptions{Ref: ref, Paths: []string{dir}, Pack: model.PackOptions{Annotations: map[string]string{"tag": tag}}}
	if key != nil {
		o.Signing = &aegis.Signing{Signer: key}
	}
	if _, err := aegis.New(client, aegis.Options{}).Push(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

func keyFile(t *testing.T, key *testkey.Key) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, key.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestLoaderLoadsWhatVerifies(t *testing.T) {
	key := testkey.New(t, signature.ECDSAP256)
	ref, pem, dir := push(t, "signed", key), keyFile(t, key), filepath.Join(t.TempDir(), "model")
	for _, pull := range []bool{true, false} {
		var out bytes.Buffer
		if err := run(t.Context(), &out, pem, ref, dir, pull); err != nil {
			t.Fatal(err)
		}
		if out.String() != "loaded config.json (22 bytes)\n" {
			t.Errorf("pull %v: %s", pull, out.String())
		}
	}
}

func TestLoaderRefusesEverythingElse(t *testing.T) {
	key := testkey.New(t, signature.ECDSAP256)
	pem := keyFile(t, key)
	wantRefusal := func(what, ref, dir string, pull bool) {
		t.Helper()
		var out bytes.Buffer
		err := run(t.Context(), &out, pem, ref, dir, pull)
		if err == nil || !refused(err) {
			t.Errorf("%s: %v is no refusal", what, err)
		}
		if out.Len() > 0 {
			t.Errorf("%s: %s", what, out.String())
		}
	}
	dir := filepath.Join(t.TempDir(), "model")
	wantRefusal("unsigned", push(t, "unsigned", nil), dir, true)
	wantRefusal("another key", push(t, "other", testkey.New(t, signature.ECDSAP256)), dir, true)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("a refused model left %s: %v", dir, err)
	}

	ref := push(t, "good", key)
	if err := run(t.Context(), &bytes.Buffer{}, pem, ref, dir, true); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"model_type": "evil"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal("changed file", ref, dir, false)

	plain := t.TempDir()
	if err := os.WriteFile(filepath.Join(plain, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal("never pulled", ref, plain, false)
}
