// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package acceptance

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// root is the module's root.
var root = func() string {
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		panic(err)
	}
	return dir
}()

// result is what a program left.
type result struct {
	code           int
	stdout, stderr string
}

func (r result) String() string { return r.stdout + r.stderr }

// run runs a program with exactly this environment.
func run(t testing.TB, env []string, stdin, name string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = env
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Dir = t.TempDir()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// operator is the environment of somebody who administers srv: its CLI first on
// the PATH, under the name given, and the root token.
func operator(t testing.TB, srv *servertest.Server, cli string) []string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(servertest.VaultProgram(t), filepath.Join(dir, cli)); err != nil {
		t.Fatal(err)
	}
	env := srv.VaultEnv(t)
	env[slices.IndexFunc(env, func(s string) bool { return strings.HasPrefix(s, "PATH=") })] = "PATH=" + dir + ":" + os.Getenv("PATH")
	return append(env, "VAULT_TOKEN="+srv.RootToken)
}

// login logs in with a JWT and returns the status and the token.
func login(t testing.TB, srv *servertest.Server, mount, role, jwt string) (int, string) {
	t.Helper()
	status, answer := srv.Do(t, http.MethodPut, "auth/"+mount+"/login", "", map[string]any{"role": role, "jwt": jwt})
	auth, _ := answer["auth"].(map[string]any)
	token, _ := auth["client_token"].(string)
	return status, token
}

// changes counts the requests that wrote or deleted something, from an index of
// the audit log on. Logins and lookups change nothing that an operator set.
func changes(t testing.TB, srv *servertest.Server, from int) (paths []string) {
	t.Helper()
	for _, e := range srv.AuditEntries(t)[from:] {
		request, _ := e["request"].(map[string]any)
		operation, _ := request["operation"].(string)
		if e["type"] == "request" && (operation == "create" || operation == "update" || operation == "delete" || operation == "patch") {
			path, _ := request["path"].(string)
			paths = append(paths, operation+" "+path)
		}
	}
	return paths
}
