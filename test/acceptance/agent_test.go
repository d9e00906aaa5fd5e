// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"encoding/json"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// startAgent runs HashiCorp's own agent, which logs in by AppRole, keeps the token
// in a file and answers at a listener, and returns both.
func startAgent(t *testing.T, srv *servertest.Server, roleID, secretID string) (sink, listener string) {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	sink = filepath.Join(dir, "token")
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	config, err := json.Marshal(map[string]any{
		"vault": map[string]any{"address": srv.VaultAddr, "ca_cert": srv.CAFile},
		"auto_auth": map[string]any{
			"method": []any{map[string]any{"type": "approle", "config": map[string]any{
				"role_id_file_path": write("role-id", []byte(roleID)), "secret_id_file_path": write("secret-id", []byte(secretID)),
			}}},
			"sinks": []any{map[string]any{"sink": map[string]any{"type": "file", "config": map[string]any{"path": sink}}}},
		},
		"api_proxy": map[string]any{"use_auto_auth_token": true},
		"listener":  map[string]any{"tcp": map[string]any{"address": port, "tls_disable": true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(servertest.VaultProgram(t), "agent", "-config="+write("agent.json", config))
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of the agent:\n%s", log.String())
		}
	})
	for range 300 {
		if raw, err := os.ReadFile(sink); err == nil && len(raw) > 0 {
			return sink, "http://" + port
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the agent has not logged in")
	return "", ""
}

// TestVaultsOwnAgent signs with the token in the agent's file, and through its
// listener with no token at all. The token is the agent's: it outlives both.
func TestVaultsOwnAgent(t *testing.T) {
	t.Parallel()
	f := newFigures(t)
	value := func(name string) string {
		flags := f.methods["approle"]
		return flags[slices.Index(flags, name)+1]
	}
	secretID, err := os.ReadFile(value("--vault-secret-id-file"))
	if err != nil {
		t.Fatal(err)
	}
	sink, listener := startAgent(t, f.vault, value("--vault-role-id"), string(secretID))
	token := func() string {
		raw, err := os.ReadFile(sink)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(raw))
	}
	before := token()
	direct := maps.Clone(f.env)
	proxied := map[string]string{"VAULT_AGENT_ADDR": listener}
	for name, run := range map[string]struct {
		env   map[string]string
		flags []string
	}{
		"file":     {direct, []string{"--vault-auth", "agent", "--vault-token-file", sink}},
		"listener": {proxied, []string{"--vault-auth", "agent"}},
	} {
		flags := append([]string{"--key", "hashivault://" + probedKey}, run.flags...)
		_, log := aegis(t, run.env, 0, append([]string{"sign", "--debug", f.ref}, flags...)...)
		out, more := aegis(t, run.env, 0, append([]string{"verify", "--debug", f.ref}, flags...)...)
		if strings.Contains(log+out+more, before) {
			t.Errorf("%s: the agent's token is printed", name)
		}
		status, answer := f.vault.Do(t, http.MethodGet, "auth/token/lookup-self", before, nil)
		if status != http.StatusOK || token() != before {
			t.Fatalf("%s: the agent's token was taken from it: status %d", name, status)
		}
		data, _ := answer["data"].(map[string]any)
		prove(t, auditShows, "Vault's own agent, by its %s: sign and verify with its token, TTL %v s, left to the agent", name, data["creation_ttl"])
	}
	// The file's token is refused, and the agent has put no other in its place.
	f.vault.Write(t, "auth/token/revoke", map[string]any{"token": before})
	_, log := aegis(t, direct, 4, "verify", "--key", "hashivault://"+probedKey, "--vault-auth", "agent", "--vault-token-file", sink, f.ref)
	if !strings.Contains(log, sink) || strings.Contains(log, before) {
		t.Errorf("a revoked token in the file: %s", log)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
