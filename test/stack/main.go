// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Command aegis-stack runs the two servers that aegis-oci talks to, for tests and
// for the demo: a real OpenBao core with a Transit engine, initialised and
// unsealed, and a real OCI registry with the referrers API. Both listen on
// loopback ports of their own.
//
// It is not for production: the root token and the unseal key are written to the
// ready file and to stdout.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// options are the command's flags.
type options struct {
	dir            string
	ready          string
	vaultAddr      string
	vaultStorage   string
	registryAddr   string
	registryDir    string
	noVault        bool
	noRegistry     bool
	noReferrers    bool
	tls            bool
	exitOnStdinEOF bool
}

// ready is the JSON that tells the caller where the servers are. Fields of a
// server that was not asked for are left out.
type ready struct {
	VaultAddr  string `json:"vaultAddr,omitempty"`  // URL
	RootToken  string `json:"rootToken,omitempty"`  // never expires
	UnsealKey  string `json:"unsealKey,omitempty"`  // the only share, in hex
	Registry   string `json:"registry,omitempty"`   // host:port, no scheme
	AuditLog   string `json:"auditLog,omitempty"`   // path of the file audit device
	CAFile     string `json:"caFile,omitempty"`     // PEM, with -tls
	ClientCert string `json:"clientCert,omitempty"` // PEM, with -tls: for Vault's cert auth
	ClientKey  string `json:"clientKey,omitempty"`  // PEM, with -tls
}

func main() {
	opts, err := parseFlags(os.Args[1:], os.Stderr)
	if err != nil {
		os.Exit(2)
	}
	// The parent may be gone, and its end of stderr with it, while this cleans up.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if opts.exitOnStdinEOF {
		ctx = cancelOnEOF(ctx, os.Stdin)
	}
	// Being told to end while starting is no failure.
	if err := run(ctx, opts, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "aegis-stack: error:", err)
		os.Exit(1)
	}
}

func parseFlags(args []string, stderr io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("aegis-stack", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.StringVar(&o.dir, "dir", "", "directory for the audit log and the certificates (default: a temporary one, removed at the end)")
	f.StringVar(&o.ready, "ready", "", "file to write the addresses to, as JSON, once both servers answer")
	f.StringVar(&o.vaultAddr, "vault-addr", "127.0.0.1:0", "address of the OpenBao server")
	f.StringVar(&o.vaultStorage, "vault-storage", "", "keep OpenBao's data in this directory, together with its unseal key (default: in memory)")
	f.StringVar(&o.registryAddr, "registry-addr", "127.0.0.1:0", "address of the registry")
	f.StringVar(&o.registryDir, "registry-dir", "", "keep the registry's data in this directory (default: in memory)")
	f.BoolVar(&o.noVault, "no-vault", false, "start the registry only")
	f.BoolVar(&o.noRegistry, "no-registry", false, "start OpenBao only")
	f.BoolVar(&o.noReferrers, "no-referrers", false, "switch the registry's referrers API off: olareg then answers 405")
	f.BoolVar(&o.tls, "tls", false, "serve HTTPS with a certificate of a new private CA")
	f.BoolVar(&o.exitOnStdinEOF, "exit-on-stdin-eof", false, "end when stdin is closed, so that the program cannot outlive its parent")
	if err := f.Parse(args); err != nil {
		return options{}, err
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "aegis-stack: unexpected argument %q\n", f.Arg(0))
		return options{}, errors.New("usage")
	}
	if o.vaultStorage != "" {
		abs, err := filepath.Abs(o.vaultStorage)
		if err != nil {
			fmt.Fprintln(stderr, "aegis-stack:", err)
			return options{}, err
		}
		o.vaultStorage = abs
	}
	return o, nil
}

// cancelOnEOF returns a context that ends when r does.
func cancelOnEOF(parent context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancel(parent)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, r)
	}()
	return ctx
}

// run starts the servers, announces them and serves until ctx ends.
func run(ctx context.Context, opts options, stdout io.Writer) error {
	dir, remove, err := workDir(opts.dir)
	if err != nil {
		return err
	}
	defer remove()

	var announced ready
	var certs *certificates
	if opts.tls {
		if certs, err = newCertificates(dir, time.Now()); err != nil {
			return err
		}
		announced.CAFile, announced.ClientCert, announced.ClientKey = certs.caFile, certs.clientCertFile, certs.clientKeyFile
	}
	failed := make(chan error, 2)
	if !opts.noRegistry {
		reg, err := startRegistry(opts, certs, failed)
		if err != nil {
			return err
		}
		defer reg.stop()
		announced.Registry = reg.addr
	}
	if !opts.noVault {
		bao, err := startVault(ctx, opts, dir, certs, failed)
		if err != nil {
			return err
		}
		defer bao.stop()
		announced.VaultAddr, announced.AuditLog = bao.url, bao.auditLog
		announced.RootToken, announced.UnsealKey = bao.keys.RootToken, bao.keys.UnsealKey
	}
	if err := announce(announced, opts.ready, stdout); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// workDir makes dir, or a temporary directory if dir is empty. Only the latter is
// removed by remove.
func workDir(dir string) (path string, remove func(), err error) {
	if dir == "" {
		dir, err = os.MkdirTemp("", "aegis-stack-")
		if err != nil {
			return "", nil, fmt.Errorf("making a work directory: %w", err)
		}
		return dir, func() { _ = os.RemoveAll(dir) }, nil
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", nil, fmt.Errorf("making the work directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("making the work directory: %w", err)
	}
	return dir, func() {}, nil
}

// shutdown ends an HTTP server, giving running requests two seconds.
func shutdown(srv *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close()
	}
}
