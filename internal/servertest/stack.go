// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package servertest starts the real servers that tests talk to: OpenBao with
// Transit, an OCI registry with the referrers API, the CNCF distribution registry
// without it, and a proxy that puts faults in front of any of them.
package servertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

const (
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// Server is a running aegis-stack: an unsealed OpenBao core and an OCI registry.
type Server struct {
	VaultAddr string // URL, for VAULT_ADDR
	RootToken string
	UnsealKey string // the only share, in hex
	Registry  string // host:port
	AuditLog  string // file of JSON lines; see AuditEntries
	// The files are empty without -tls. The client pair is for Vault's cert auth.
	CAFile, ClientCert, ClientKey string
	// Dir is the server's own directory.
	Dir string

	client *http.Client
}

// Stack starts a server of the test's own, which ends with the test. args are
// flags of aegis-stack, such as -no-vault, -no-referrers or -tls. It takes about
// 0.2 s.
func Stack(t testing.TB, args ...string) *Server {
	t.Helper()
	program := binary(t, "aegis-stack", "test/stack")
	dir := t.TempDir()
	child, server, err := startStack(program, append([]string{"-dir", dir}, args...))
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	server.Dir = dir
	t.Cleanup(func() {
		if err := child.stop(); err != nil {
			t.Errorf("servertest: stopping aegis-stack: %v", err)
		}
		if t.Failed() && child.stderr.Len() > 0 {
			t.Logf("stderr of aegis-stack:\n%s", child.stderr.String())
		}
	})
	return server
}

var shared struct {
	sync.Mutex
	children []*child // kept, for closing a stdin would end its server
	server   *Server
	err      error
	users    map[string]testing.TB // the tests that have the server, by name
}

// SharedStack returns one server for all tests of a test binary, which ends with
// the test process. Tests that share it use key and repository names of their
// own, and do not seal it. A test that runs again (go test -count) finds its names
// free: it gets the next server.
func SharedStack(t testing.TB) *Server {
	t.Helper()
	program := binary(t, "aegis-stack", "test/stack")
	shared.Lock()
	defer shared.Unlock()
	if earlier := shared.users[t.Name()]; shared.users == nil || earlier != nil && earlier != t {
		var c *child
		c, shared.server, shared.err = startStack(program, nil)
		shared.children = append(shared.children, c)
		shared.users = map[string]testing.TB{}
	}
	shared.users[t.Name()] = t
	if shared.err != nil {
		t.Fatalf("servertest: %v", shared.err)
	}
	return shared.server
}

// HTTPClient returns a client that trusts the server's CA.
func (s *Server) HTTPClient() *http.Client { return s.client }

// RegistryURL returns the registry's base URL, with no slash at the end.
func (s *Server) RegistryURL() string {
	if s.CAFile != "" {
		return "https://" + s.Registry
	}
	return "http://" + s.Registry
}

func startStack(program string, args []string) (*child, *Server, error) {
	c, err := startChild(exec.Command(program, append([]string{"-exit-on-stdin-eof"}, args...)...))
	if err != nil {
		return nil, nil, fmt.Errorf("starting aegis-stack: %w", err)
	}
	line, err := c.firstLine()
	if err == nil {
		var server *Server
		if server, err = newServer(line); err == nil {
			return c, server, nil
		}
	}
	_ = c.stop()
	return nil, nil, fmt.Errorf("starting aegis-stack: %w\n%s", err, c.stderr.String())
}

func newServer(ready []byte) (*Server, error) {
	s := &Server{client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{}}}
	if err := json.Unmarshal(ready, s); err != nil {
		return nil, fmt.Errorf("reading its addresses: %w", err)
	}
	s.Dir = filepath.Dir(s.AuditLog)
	if s.CAFile == "" {
		return s, nil
	}
	if err := s.trust(); err != nil {
		return nil, err
	}
	return s, nil
}

// child is a process that ends when its stdin is closed, so that it cannot
// outlive the test process even when that is killed.
type child struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stdout *bufio.Reader
	stderr lockedBuffer
	exited chan struct{}
}

func startChild(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, exited: make(chan struct{})}
	cmd.Stderr = &c.stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.stdin = stdin
	stdout, stdoutWriter, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	c.stdout, cmd.Stdout = bufio.NewReader(stdout), stdoutWriter
	err = cmd.Start()
	_ = stdoutWriter.Close()
	if err != nil {
		_ = stdout.Close()
		return nil, err
	}
	go func() {
		defer close(c.exited)
		_ = cmd.Wait()
	}()
	return c, nil
}

// firstLine waits for a line on stdout.
func (c *child) firstLine() ([]byte, error) {
	type result struct {
		line []byte
		err  error
	}
	read := make(chan result, 1)
	go func() {
		line, err := c.stdout.ReadBytes('\n')
		read <- result{line, err}
	}()
	select {
	case r := <-read:
		return r.line, r.err
	case <-time.After(startTimeout):
		return nil, fmt.Errorf("not ready after %s", startTimeout)
	}
}

// stop closes stdin, and kills a process that does not heed it.
func (c *child) stop() error {
	_ = c.stdin.Close()
	select {
	case <-c.exited:
		return nil
	case <-time.After(stopTimeout):
	}
	if err := c.cmd.Process.Kill(); err != nil {
		return err
	}
	<-c.exited
	return fmt.Errorf("killed: still running %s after its stdin was closed", stopTimeout)
}

// lockedBuffer is written by the goroutine that copies stderr.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Len()
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
