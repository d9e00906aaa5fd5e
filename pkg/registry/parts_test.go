// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// TestBlobSaysWhetherToAskForAPart: of who does not announce ranges one is asked, for all
// blobs, until it is known. It makes a pull-through cache that is still empty fetch the
// blob once more.
func TestBlobSaysWhetherToAskForAPart(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("x"), 1<<12)
	desc := descOf(content)
	type server struct {
		announces string
		parts     bool
		// fails has it answer so many ranges with 503.
		fails int64
	}
	for name, c := range map[string]struct {
		server
		before, after []bool // what is said in turn, and when a part was asked for
	}{
		"announced":              {server{"bytes", true, 0}, []bool{true, true}, []bool{true, true}},
		"announced among others": {server{"seconds, Bytes", true, 0}, []bool{true, true}, []bool{true, true}},
		"announced, and refused": {server{"bytes", false, 0}, []bool{true, true}, []bool{true, true}},
		"said to be none":        {server{"none", false, 0}, []bool{false, false}, []bool{false, false}},
		"not announced":          {server{"", true, 0}, []bool{true, false}, []bool{true, true}},
		"unknown":                {server{"", false, 0}, []bool{true, false}, []bool{false, false}},
		"it could not be told":   {server{"", true, 1}, []bool{true, false}, []bool{true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var failed atomic.Int64
			serves := answer(get("/blobs/"+desc.Digest.String()), func(w http.ResponseWriter, req *http.Request) {
				if req.Header.Get("Range") != "" && failed.Add(1) <= c.fails {
					w.WriteHeader(http.StatusServiceUnavailable)
					return
				}
				if !c.parts {
					req.Header.Del("Range")
				}
				http.ServeContent(announcing{w, c.announces}, req, "", time.Time{}, bytes.NewReader(content))
			})
			origin := memRegistry(t, nil)
			for where, repo := range map[string]*registry.Repository{
				"registry": newRepo(t, memRegistry(t, nil, serves)+"/m:v1", registry.Options{Retry: registry.RetryPolicy{Budget: 1}}),
				"mirror": mirroredRepo(t, origin+"/m:v1", registry.Options{
					Mirrors: []registry.Mirror{{URL: "http://" + memRegistry(t, nil, serves)}},
				}),
			} {
				failed.Store(0)
				says := func(want []bool) {
					t.Helper()
					var said []bool
					for range want {
						body, _, err := repo.OpenBlob(t.Context(), desc, 0)
						if err != nil {
							t.Fatal(where, err)
						}
						said = append(said, body.(interface{ Ranges() bool }).Ranges())
						body.Close()
					}
					if !slices.Equal(said, want) {
						t.Errorf("%s: said %v, want %v", where, said, want)
					}
				}
				says(c.before)
				if body, err := repo.OpenRange(t.Context(), desc, desc.Size-1, desc.Size); err == nil {
					_, _ = io.Copy(io.Discard, body)
					body.Close()
				}
				if c.fails > 0 && where == "mirror" {
					continue // it is left alone now
				}
				says(c.after)
			}
		})
	}
}

// announcing says this of ranges, whatever else is said.
type announcing struct {
	http.ResponseWriter
	accepts string
}

func (a announcing) WriteHeader(status int) {
	if a.Header().Set("Accept-Ranges", a.accepts); a.accepts == "" {
		a.Header().Del("Accept-Ranges")
	}
	a.ResponseWriter.WriteHeader(status)
}

// TestAPartIsAskedOfWhoSendsTheBlob, whatever the state of the mirrors is by then.
func TestAPartIsAskedOfWhoSendsTheBlob(t *testing.T) {
	t.Parallel()
	content := bytes.Repeat([]byte("0123456789"), 1000)
	desc := descOf(content)
	var away atomic.Bool
	whole := answer(get("/blobs/"+desc.Digest.String()), func(w http.ResponseWriter, req *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		req.Header.Del("Range")
		http.ServeContent(announcing{w, ""}, req, "", time.Time{}, bytes.NewReader(content))
	})
	parts := answer(get("/blobs/"+desc.Digest.String()), func(w http.ResponseWriter, req *http.Request) {
		http.ServeContent(announcing{w, ""}, req, "", time.Time{}, bytes.NewReader(content))
	})
	repo := mirroredRepo(t, memRegistry(t, nil, parts)+"/m:v1", registry.Options{Warn: func(string) {}, Mirrors: []registry.Mirror{{URL: "http://" + memRegistry(t, nil, whole)}}})
	type ranging interface {
		Ranges() bool
		Part(ctx context.Context, offset, end int64) (io.ReadCloser, error)
	}
	open := func() ranging {
		t.Helper()
		body, _, err := repo.OpenBlob(t.Context(), desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { body.Close() })
		return body.(ranging)
	}
	// The mirror sends the blob, and no part: the registry's would say nothing of it.
	body := open()
	if _, err := body.Part(t.Context(), desc.Size-1, desc.Size); body.Ranges() || !errors.Is(err, registry.ErrNoRanges) {
		t.Errorf("a part of the mirror's: %v", err)
	}
	// The registry sends it, and a part, though the mirror is back.
	away.Store(true)
	body = open()
	away.Store(false)
	if !body.Ranges() {
		t.Fatal("the registry was asked already")
	}
	part, err := body.Part(t.Context(), desc.Size-1, desc.Size)
	if err != nil {
		t.Fatal(err)
	}
	part.Close()
	for range 2 { // What is not known is said once.
		if !body.Ranges() {
			t.Error("the registry, which sends parts, is not asked for another")
		}
	}
}
