// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
)

// registry is a running OCI registry.
type registry struct {
	addr string // host:port
	stop func()
}

// startRegistry serves olareg. An error of the running server goes to failed.
func startRegistry(opts options, certs *certificates, failed chan<- error) (*registry, error) {
	listener, err := net.Listen("tcp", opts.registryAddr)
	if err != nil {
		return nil, fmt.Errorf("starting the registry: %w", err)
	}
	yes, referrers := true, !opts.noReferrers
	conf := config.Config{
		Storage: config.ConfigStorage{
			StoreType: config.StoreMem,
			// No collection: a test that waits must not lose an untagged signature.
			GC: config.ConfigGC{Frequency: -1},
		},
		API: config.ConfigAPI{
			DeleteEnabled: &yes,
			Blob:          config.ConfigAPIBlob{DeleteEnabled: &yes},
			Referrer:      config.ConfigAPIReferrer{Enabled: &referrers},
		},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if opts.registryDir != "" {
		if err := os.MkdirAll(opts.registryDir, 0o755); err != nil {
			_ = listener.Close()
			return nil, fmt.Errorf("starting the registry: %w", err)
		}
		conf.Storage.StoreType, conf.Storage.RootDir = config.StoreDir, opts.registryDir
	}
	store := olareg.New(conf)
	srv := &http.Server{Handler: oneAtATime(store), ReadHeaderTimeout: 10 * time.Second}
	go serve(srv, listener, certs, "registry", failed)
	return &registry{addr: listener.Addr().String(), stop: func() {
		shutdown(srv)
		_ = store.Close()
	}}, nil
}

// maxManifest is above what olareg takes, so that olareg answers what is too large.
const maxManifest = 16 << 20

// oneAtATime lets one change of a manifest in after the other. olareg 0.2.2 reads a
// subject's list of referrers, adds to it and writes it back without a lock: of two
// that arrive at once, one is answered 201 and is missing from the list.
func oneAtATime(registry http.Handler) http.Handler {
	var changing sync.Mutex
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut && r.Method != http.MethodDelete || !strings.Contains(r.URL.Path, "/manifests/") {
			registry.ServeHTTP(w, r)
			return
		}
		// Read before the lock is taken: a client that stalls stops nobody else.
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxManifest))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		changing.Lock()
		defer changing.Unlock()
		registry.ServeHTTP(w, r)
	})
}

// serve runs srv on listener until it is shut down.
func serve(srv *http.Server, listener net.Listener, certs *certificates, name string, failed chan<- error) {
	var err error
	if certs == nil {
		err = srv.Serve(listener)
	} else {
		srv.TLSConfig = certs.serverConfig()
		err = srv.ServeTLS(listener, "", "")
	}
	if !errors.Is(err, http.ErrServerClosed) {
		failed <- fmt.Errorf("serving the %s: %w", name, err)
	}
}
