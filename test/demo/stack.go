// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// stack is a running aegis-stack.
type stack struct {
	VaultAddr string `json:"vaultAddr"`
	RootToken string `json:"rootToken"`
	Registry  string `json:"registry"`
	AuditLog  string `json:"auditLog"`

	registryDir string
	cmd         *exec.Cmd
	stdin       io.Closer
}

func startStack(ctx context.Context, bin, work string) (*stack, error) {
	s := &stack{registryDir: filepath.Join(work, "registry")}
	if err := os.Mkdir(s.registryDir, 0o755); err != nil {
		return nil, err
	}
	s.cmd = exec.CommandContext(ctx, bin, "-dir", filepath.Join(work, "stack"), "-registry-dir", s.registryDir, "-exit-on-stdin-eof")
	s.cmd.Stderr = os.Stderr
	stdin, err := s.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	s.stdin = stdin
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, s)
	}
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("aegis-stack did not start: %w", err)
	}
	return s, nil
}

func (s *stack) stop() {
	_ = s.stdin.Close()
	_ = s.cmd.Wait()
}

// publicKey reads the first version of a Transit key as PEM.
func (s *stack) publicKey(name string) ([]byte, error) {
	var key struct {
		Data struct {
			Keys map[string]struct {
				PublicKey string `json:"public_key"`
			} `json:"keys"`
		} `json:"data"`
	}
	err := s.call(http.MethodGet, "transit/keys/"+name, nil, &key)
	return []byte(key.Data.Keys["1"].PublicKey), err
}

func (s *stack) write(path string, body map[string]any, out any) error {
	return s.call(http.MethodPut, path, body, out)
}

// call asks Vault as root and decodes the answer into out, if there is one.
func (s *stack) call(method, path string, body map[string]any, out any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequest(method, s.VaultAddr+"/v1/"+path, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("X-Vault-Token", s.RootToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// token makes a token that may do nothing but update path, for ten minutes.
func (s *stack) token(path string) (string, error) {
	name := strings.ReplaceAll(path, "/", "-")
	policy := fmt.Sprintf(`path %q { capabilities = ["update"] }`, path)
	if err := s.write("sys/policies/acl/"+name, map[string]any{"policy": policy}, nil); err != nil {
		return "", err
	}
	var created struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
	}
	err := s.write("auth/token/create", map[string]any{
		"policies": []string{name}, "no_default_policy": true, "ttl": "10m", "explicit_max_ttl": "10m", "no_parent": true,
	}, &created)
	return created.Auth.ClientToken, err
}

// auditLines renders the requests that the demo's tokens made on Transit.
func (s *stack) auditLines() ([]string, error) {
	raw, err := os.ReadFile(s.AuditLog)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range bytes.Lines(raw) {
		var e struct {
			Time time.Time `json:"time"`
			Type string    `json:"type"`
			Auth struct {
				Policies []string `json:"policies"`
				TokenTTL int64    `json:"token_ttl"`
			} `json:"auth"`
			Request struct {
				Path string `json:"path"`
			} `json:"request"`
			Error string `json:"error"`
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("audit log: %w", err)
		}
		demoToken := len(e.Auth.Policies) == 1 && e.Auth.Policies[0] != "root"
		if e.Type != "response" || e.Error != "" || !demoToken || !strings.HasPrefix(e.Request.Path, "transit/") {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s  %-34s token lives %ds", e.Time.Format(time.TimeOnly), e.Request.Path, e.Auth.TokenTTL))
	}
	return lines, nil
}
