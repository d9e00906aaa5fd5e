// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// init makes this test binary, called vault, send what a few commands of Vault's
// CLI send. The server is real. What the CLI itself takes is tested where the real
// one is run.
func init() {
	if filepath.Base(os.Args[0]) != "vault" {
		return
	}
	if err := vaultCommand(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vault:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func vaultCommand(args []string) error {
	options, words := map[string]string{}, []string{}
	for _, a := range args {
		if name, ok := strings.CutPrefix(a, "-"); ok && a != "-" {
			name, value, _ := strings.Cut(name, "=")
			options[name] = value
			continue
		}
		words = append(words, a)
	}
	if len(words) < 2 {
		return fmt.Errorf("%q is not known here", args)
	}
	method, path, body := http.MethodPut, words[1], map[string]any{}
	switch verb := words[0]; {
	case verb == "auth" && words[1] == "enable" && len(words) == 3:
		path = options["path"]
		if path == "" {
			path = words[2]
		}
		path, body["type"] = "sys/auth/"+path, words[2]
	case verb == "policy" && words[1] == "write" && len(words) == 4 && words[3] == "-":
		text, err := io.ReadAll(os.Stdin)
		if err != nil {
			return err
		}
		path, body["policy"] = "sys/policies/acl/"+words[2], string(text)
	case verb == "write" && len(words) == 3 && words[2] == "-":
		if err := json.NewDecoder(os.Stdin).Decode(&body); err != nil {
			return err
		}
	case verb == "write":
		for _, w := range words[2:] {
			name, value, ok := strings.Cut(w, "=")
			if file, isFile := strings.CutPrefix(value, "@"); isFile {
				content, err := os.ReadFile(file)
				if err != nil {
					return err
				}
				value = string(content)
			}
			if !ok {
				return fmt.Errorf("%q is no NAME=VALUE", w)
			}
			body[name] = value
		}
	case verb == "read" && len(words) == 2:
		method = http.MethodGet
	default:
		return fmt.Errorf("%q is not known here", args)
	}
	return vaultRequest(method, path, body, options)
}

func vaultRequest(method, path string, body map[string]any, options map[string]string) error {
	content, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, os.Getenv("VAULT_ADDR")+"/v1/"+path, bytes.NewReader(content))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", os.Getenv("ADMIN_TOKEN"))
	if ttl := options["wrap-ttl"]; ttl != "" {
		req.Header.Set("X-Vault-Wrap-TTL", ttl)
	}
	ca, err := os.ReadFile(os.Getenv("VAULT_CACERT"))
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		return errors.New("no CA")
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Errors   []string       `json:"errors"`
		Data     map[string]any `json:"data"`
		WrapInfo struct {
			Token string `json:"token"`
		} `json:"wrap_info"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: status %d: %v", path, resp.StatusCode, answer.Errors)
	}
	switch field := options["field"]; field {
	case "":
	case "wrapping_token":
		fmt.Print(answer.WrapInfo.Token)
	default:
		fmt.Print(answer.Data[field])
	}
	return nil
}

var shellBlock = regexp.MustCompile("(?s)```sh\n(.*?)```")

// TestTheLoginPageRuns runs all that docs/login.md has in shell blocks, one after
// the other, against a real Vault and registry. Only the hosts are other ones.
func TestTheLoginPageRuns(t *testing.T) {
	srv, issuer, dir := servertest.Stack(t, "-tls"), servertest.OIDC(t), t.TempDir()
	host, ca := servertest.TokenReviewStandIn(t, issuer)
	issuer.JobClaims(map[string]any{"repository": "acme/models", "ref": "refs/heads/main"})
	bin := filepath.Join(dir, "bin")
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("vad/weights.bin", "weights")
	write("ca.crt", ca)
	for name, from := range map[string]string{"host-ca.pem": srv.CAFile, "host.pem": srv.ClientCert, "host-key.pem": srv.ClientKey} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(content))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"vault": self, "aegis-oci": program(t)} {
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	// What the agent's file needs is there only once the page has made the policy.
	policy := "path \"transit/verify/aegis-model-sign\" { capabilities = [\"update\"] }"
	srv.Policy(t, "agent", policy)
	agent := write("agent-token", srv.Token(t, map[string]any{"policies": []string{"agent"}, "ttl": "10m"}))

	var script strings.Builder
	script.WriteString("set -e\n")
	blocks := shellBlock.FindAllStringSubmatch(page(t, "docs/login.md"), -1)
	for _, b := range blocks {
		script.WriteString(b[1])
	}
	text := strings.NewReplacer(
		"registry.example.com", srv.Registry, "https://kube.example.com:6443", host,
		"https://token.actions.githubusercontent.com", issuer.URL, "https://gitlab.example.com", issuer.URL,
	).Replace(script.String())
	cmd := exec.Command("sh")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(text)
	cmd.Env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "ADMIN_TOKEN=" + srv.RootToken,
		// The race detector lets each vault, which is this binary, linger for a second.
		"GORACE=atexit_sleep_ms=0",
		"VAULT_ADDR=" + srv.VaultAddr, "VAULT_CACERT=" + srv.CAFile, "AEGIS_CA_FILE=" + srv.CAFile,
		"ACTIONS_ID_TOKEN_REQUEST_URL=" + issuer.RequestURL(), "ACTIONS_ID_TOKEN_REQUEST_TOKEN=" + issuer.RequestToken,
		"VAULT_ID_TOKEN=" + issuer.Token(t, map[string]any{"project_path": "acme/models", "ref": "main", "ref_protected": "true"}),
		"AEGIS_VAULT_TOKEN_FILE=" + agent,
		"AEGIS_VAULT_K8S_TOKEN_PATH=" + write("pod-token", issuer.PodToken(t, "default", "aegis-app", nil)),
	}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "warning") {
		t.Fatalf("the page ends with %v:\n%s", err, out)
	}
	logins := map[string]int{}
	for _, e := range srv.AuditEntries(t) {
		if request, _ := e["request"].(map[string]any); e["type"] == "response" && e["error"] == nil {
			path, _ := request["path"].(string)
			logins[path]++
		}
	}
	for _, path := range []string{"auth/jwt/login", "auth/gitlab/jwt/login", "auth/kubernetes/login", "auth/approle/login", "auth/cert/login", "sys/wrapping/unwrap"} {
		if logins[path] != 1 {
			t.Errorf("%d times %s in the audit log, want 1", logins[path], path)
		}
	}
	if logins["auth/token/revoke-self"] != 5 {
		t.Errorf("%d of 5 tokens were revoked", logins["auth/token/revoke-self"])
	}
	if len(blocks) != 12 {
		t.Errorf("the page has %d blocks", len(blocks))
	}
}
