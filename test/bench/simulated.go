// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"
)

// keepUpTo is the size up to which a simulated registry keeps what it is sent.
const keepUpTo = 4 << 20

// simulated is a registry for models that are larger than the machine: what is sent
// to it in blobs above keepUpTo has to be zeros, and is not kept but for its size.
type simulated struct {
	server *http.Server
	addr   string

	mu        sync.Mutex
	small     map[string][]byte // blobs and manifests, by digest
	types     map[string]string // of manifests, by digest
	tags      map[string]string
	large     map[string]int64 // sizes, by digest
	uploads   map[string]*upload
	discarded int64
}

type upload struct {
	content bytes.Buffer // as long as it is small
	size    int64
}

func newSimulated() (*simulated, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &simulated{addr: listener.Addr().String(), small: map[string][]byte{}, types: map[string]string{},
		tags: map[string]string{}, large: map[string]int64{}, uploads: map[string]*upload{}}
	s.server = &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute}
	go s.server.Serve(listener) //nolint:errcheck // ends with Close
	return s, nil
}

func (s *simulated) close() { s.server.Close() }

func (s *simulated) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	switch {
	case r.URL.Path == "/v2/":
	case strings.Contains(r.URL.Path, "/blobs/uploads/"):
		s.receive(w, r, name)
	case strings.Contains(r.URL.Path, "/blobs/"):
		s.blob(w, r, name)
	case strings.Contains(r.URL.Path, "/manifests/") && r.Method == http.MethodPut:
		s.putManifest(w, r, name)
	case strings.Contains(r.URL.Path, "/manifests/"):
		s.manifest(w, r, name)
	default:
		http.NotFound(w, r)
	}
}

// receive is POST, PATCH and PUT of the distribution specification's uploads.
func (s *simulated) receive(w http.ResponseWriter, r *http.Request, name string) {
	s.mu.Lock()
	u := s.uploads[name]
	if r.Method == http.MethodPost {
		u, name = &upload{}, fmt.Sprintf("u%d", len(s.uploads))
		s.uploads[name] = u
	}
	s.mu.Unlock()
	if u == nil {
		http.NotFound(w, r)
		return
	}
	if err := s.append(u, r.Body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	base := r.URL.Path
	if r.Method != http.MethodPost {
		base = path.Dir(base) + "/"
	}
	w.Header().Set("Location", base+name)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	dgst := r.URL.Query().Get("digest")
	if dgst == "" {
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if err := s.commit(u, dgst); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", path.Dir(path.Dir(r.URL.Path))+"/"+dgst)
	w.Header().Set("Docker-Content-Digest", dgst)
	w.WriteHeader(http.StatusCreated)
}

// append takes the body in. Its memory does not grow with it.
func (s *simulated) append(u *upload, body io.Reader) error {
	buf := make([]byte, 128<<10)
	zeros := make([]byte, len(buf))
	for {
		n, err := body.Read(buf)
		if u.size += int64(n); u.size <= keepUpTo {
			u.content.Write(buf[:n])
		} else if !bytes.Equal(buf[:n], zeros[:n]) {
			return errors.New("a large blob that is not all zeros")
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// commit ends an upload. Small ones are hashed; the digest of zeros is taken at its
// word, because who pulls them hashes them.
func (s *simulated) commit(u *upload, dgst string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u.size > keepUpTo {
		s.large[dgst] = u.size
		s.discarded += u.size
	} else if got := digestOf(u.content.Bytes()); got != dgst {
		return fmt.Errorf("the bytes are %s", got)
	} else {
		s.small[dgst] = bytes.Clone(u.content.Bytes())
	}
	u.content = bytes.Buffer{}
	return nil
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (s *simulated) blob(w http.ResponseWriter, r *http.Request, dgst string) {
	s.mu.Lock()
	small, isSmall := s.small[dgst]
	size, isLarge := s.large[dgst]
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", dgst)
	switch {
	case isSmall:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(small))
	case isLarge:
		http.ServeContent(w, r, "", time.Time{}, io.NewSectionReader(zeroReader{}, 0, size))
	default:
		http.NotFound(w, r)
	}
}

type zeroReader struct{}

func (zeroReader) ReadAt(p []byte, _ int64) (int, error) {
	clear(p)
	return len(p), nil
}

func (s *simulated) putManifest(w http.ResponseWriter, r *http.Request, name string) {
	content, err := io.ReadAll(io.LimitReader(r.Body, keepUpTo))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	dgst := digestOf(content)
	s.small[dgst], s.types[dgst] = content, r.Header.Get("Content-Type")
	if !strings.HasPrefix(name, "sha256:") {
		s.tags[name] = dgst
	}
	w.Header().Set("Location", path.Dir(r.URL.Path)+"/"+dgst)
	w.Header().Set("Docker-Content-Digest", dgst)
	w.WriteHeader(http.StatusCreated)
}

func (s *simulated) manifest(w http.ResponseWriter, r *http.Request, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dgst := name
	if !strings.HasPrefix(name, "sha256:") {
		dgst = s.tags[name]
	}
	mediaType, ok := s.types[dgst]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Docker-Content-Digest", dgst)
	w.Header().Set("Content-Length", strconv.Itoa(len(s.small[dgst])))
	if r.Method != http.MethodHead {
		_, _ = w.Write(s.small[dgst])
	}
}
