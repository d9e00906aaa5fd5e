// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
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
	srv := &http.Server{Handler: store, ReadHeaderTimeout: 10 * time.Second}
	go serve(srv, listener, certs, "registry", failed)
	return &registry{addr: listener.Addr().String(), stop: func() {
		shutdown(srv)
		_ = store.Close()
	}}, nil
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
