// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"crypto/rand"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// instanceHeader tells one running registry from another on the same port.
const instanceHeader = "X-Servertest-Instance"

// Distribution starts a CNCF distribution registry, which has no referrers API,
// and returns its address and its storage directory: a test may tamper with the
// blobs below docker/registry/v2/blobs. It ends with the test. extra are further
// top-level sections of its YAML configuration, such as an auth section (see
// Htpasswd) or "proxy:\n  remoteurl: http://..." for a pull-through cache.
func Distribution(t testing.TB, extra ...string) (hostport, dir string) {
	t.Helper()
	program := binary(t, "registry", "test/distribution")
	dir = t.TempDir()
	configDir := t.TempDir()
	var err error
	// The port is free when we look and may be taken when the registry does.
	for range 5 {
		var c *child
		if c, hostport, err = startDistribution(program, dir, configDir, extra); err != nil {
			continue
		}
		t.Cleanup(func() {
			if err := c.stop(); err != nil {
				t.Errorf("servertest: stopping the registry: %v", err)
			}
			if t.Failed() && c.stderr.Len() > 0 {
				t.Logf("stderr of the registry:\n%s", c.stderr.String())
			}
		})
		return hostport, dir
	}
	t.Fatalf("servertest: starting the registry: %v", err)
	return "", ""
}

// Htpasswd returns an extra section for Distribution that lets in one user.
func Htpasswd(t testing.TB, user, password string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	file := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(file, []byte(user+":"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatalf("servertest: %v", err)
	}
	return fmt.Sprintf("auth:\n  htpasswd:\n    realm: aegis\n    path: %q\n", file)
}

func startDistribution(program, dir, configDir string, extra []string) (*child, string, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	instance := rand.Text()
	config := fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http:
  addr: %q
  headers: {%s: [%s]}
%s`, dir, addr, instanceHeader, instance, strings.Join(extra, "\n"))
	file := filepath.Join(configDir, "config.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	cmd := exec.Command(program, "-exit-on-stdin-eof", "serve", file)
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	c, err := startChild(cmd)
	if err != nil {
		return nil, "", err
	}
	if err := c.awaitRegistry(addr, instance); err != nil {
		_ = c.stop()
		return nil, "", fmt.Errorf("%w\n%s", err, c.stderr.String())
	}
	return c, addr, nil
}

// awaitRegistry waits until the registry answers with its own instance's header:
// another process that took the port answers without it.
func (c *child) awaitRegistry(addr, instance string) error {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	deadline := time.Now().Add(startTimeout)
	for time.Now().Before(deadline) {
		resp, err := client.Get("http://" + addr + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			if resp.Header.Get(instanceHeader) == instance {
				return nil
			}
		}
		select {
		case <-c.exited:
			return fmt.Errorf("the process ended: %s", c.cmd.ProcessState)
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s does not answer after %s", addr, startTimeout)
}

// freeAddr returns a loopback address that nobody listens on now.
func freeAddr() (string, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
