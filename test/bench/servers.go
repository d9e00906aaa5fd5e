// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	keyName = "bench"
	keyURI  = "hashivault://" + keyName
)

// vault is the OpenBao server with a P-256 key.
type vault struct {
	addr  string
	root  string
	token string // may sign and verify with the key, no more
	// publicKey is a PEM file.
	publicKey string
}

// startServers starts OpenBao with olareg, and distribution. stop is never nil.
func (b *bench) startServers(ctx context.Context) (stop func(), err error) {
	var running []*server
	stop = func() {
		for _, s := range running {
			s.stop()
		}
	}
	for _, dir := range []string{b.home, b.storage} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return stop, err
		}
	}
	stack, err := startServer(b.command(ctx, "aegis-stack", "-exit-on-stdin-eof", "-dir", filepath.Join(b.dir, "stack")))
	if err != nil {
		return stop, err
	}
	running = append(running, stack)
	var ready struct{ VaultAddr, RootToken, Registry string }
	line, err := bufio.NewReader(stack.stdout).ReadBytes('\n')
	if err != nil {
		return stop, stack.because(fmt.Errorf("aegis-stack has not said its addresses: %w", err))
	}
	if err := json.Unmarshal(line, &ready); err != nil {
		return stop, fmt.Errorf("the addresses of aegis-stack: %w", err)
	}
	b.olareg, b.vault.addr, b.vault.root = ready.Registry, ready.VaultAddr, ready.RootToken
	if err := b.prepareKey(ctx); err != nil {
		return stop, err
	}
	distribution, err := b.startDistribution(ctx)
	if err != nil {
		return stop, err
	}
	running = append(running, distribution)
	if err := b.awaitDistribution(ctx); err != nil {
		return stop, distribution.because(err)
	}
	return stop, nil
}

func (b *bench) startDistribution(ctx context.Context) (*server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.distribution = listener.Addr().String()
	if err := listener.Close(); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
http: {addr: %q}
`, b.storage, b.distribution)
	file := filepath.Join(b.dir, "registry.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := b.command(ctx, "registry", "-exit-on-stdin-eof", "serve", file)
	cmd.Env = append(cmd.Env, "OTEL_TRACES_EXPORTER=none")
	return startServer(cmd)
}

func (b *bench) awaitDistribution(ctx context.Context) error {
	for range 100 {
		resp, err := http.Get("http://" + b.distribution + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return errors.New("the distribution registry does not answer")
}

// server is a process that ends when its stdin is closed.
type server struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout io.Reader
	log    string // file with its stderr
}

// because adds what the server has said to the error.
func (s *server) because(err error) error {
	said, readErr := os.ReadFile(s.log)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	return fmt.Errorf("%w\n%s", err, said)
}

func startServer(cmd *exec.Cmd) (*server, error) {
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	log := filepath.Join(cmd.Dir, filepath.Base(cmd.Path)+".log")
	stderr, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &server{cmd: cmd, stdin: stdin, stdout: stdout, log: log}, nil
}

func (s *server) stop() {
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
}

// prepareKey makes the key, its PEM file and a token with the smallest policy.
func (b *bench) prepareKey(ctx context.Context) error {
	if _, err := b.asRoot(ctx, "transit/keys/"+keyName, map[string]any{"type": "ecdsa-p256"}); err != nil {
		return err
	}
	answer, err := b.asRoot(ctx, "transit/keys/"+keyName, nil)
	if err != nil {
		return err
	}
	b.vault.publicKey = filepath.Join(b.dir, "bench.pub")
	if err := os.WriteFile(b.vault.publicKey, []byte(answer.Data.Keys["1"].PublicKey), 0o600); err != nil {
		return err
	}
	const policy = `path "transit/sign/` + keyName + `" { capabilities = ["update"] }
path "transit/verify/` + keyName + `" { capabilities = ["update"] }`
	if _, err := b.asRoot(ctx, "sys/policies/acl/bench", map[string]any{"policy": policy}); err != nil {
		return err
	}
	answer, err = b.asRoot(ctx, "auth/token/create", map[string]any{"policies": []string{"bench"}, "no_default_policy": true, "ttl": "59m"})
	b.vault.token = answer.Auth.ClientToken
	return err
}

// vaultAnswer holds the fields of Vault's answers that are used here.
type vaultAnswer struct {
	Data struct {
		Keys map[string]struct {
			PublicKey string `json:"public_key"`
		}
	}
	Auth struct {
		ClientToken string `json:"client_token"`
	}
}

// asRoot writes body to path, or reads the path if body is nil.
func (b *bench) asRoot(ctx context.Context, path string, body map[string]any) (vaultAnswer, error) {
	var answer vaultAnswer
	method, content := http.MethodGet, []byte(nil)
	if body != nil {
		method = http.MethodPut
		var err error
		if content, err = json.Marshal(body); err != nil {
			return answer, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, b.vault.addr+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		return answer, err
	}
	req.Header.Set("X-Vault-Token", b.vault.root)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return answer, fmt.Errorf("vault: %s %s: %s", method, path, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && !errors.Is(err, io.EOF) {
		return answer, fmt.Errorf("vault: %s %s: %w", method, path, err)
	}
	return answer, nil
}
