// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// programArgs makes the test binary be the program, for what needs a process.
const programArgs = "AEGIS_OCI_TEST_ARGS"

func init() {
	if args, ok := os.LookupEnv(programArgs); ok {
		os.Args = append(os.Args[:1], strings.Split(args, "\n")...)
		_ = os.Unsetenv(programArgs)
		os.Exit(Main())
	}
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// process starts the program as a process of its own and signals it when ready is
// closed.
func (r *loginRig) process(sig os.Signal, ready <-chan struct{}, env map[string]string, args ...string) loginRun {
	r.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{programArgs + "=" + strings.Join(append(args, "--debug"), "\n"), "VAULT_ADDR=" + r.proxy.URL}
	for k, v := range env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	select {
	case <-ready:
		_ = cmd.Process.Signal(sig)
	case <-time.After(20 * time.Second):
		r.t.Error("the program did not get as far as the signal")
		_ = cmd.Process.Kill()
	}
	_ = cmd.Wait()
	got := loginRun{code: cmd.ProcessState.ExitCode(), stdout: stdout.String(), stderr: stderr.String()}
	r.streams = append(r.streams, got.stdout, got.stderr)
	return got
}

// TestASignalRevokesTheToken kills the program in the middle of its use of the
// token, and in the middle of its login, when Vault has made the token and the
// answer is on its way.
func TestASignalRevokesTheToken(t *testing.T) {
	for name, tc := range map[string]struct {
		sig  syscall.Signal
		hold func(*loginRig, chan struct{})
	}{
		"SIGTERM while verifying": {syscall.SIGTERM, holdVerify},
		"SIGINT while verifying":  {syscall.SIGINT, holdVerify},
		"SIGTERM while logging in": {syscall.SIGTERM, func(r *loginRig, ready chan struct{}) {
			r.proxy.Reset()
			r.proxy.Fail(servertest.Fault{Path: "/login", Replace: func(body []byte) []byte {
				close(ready)
				time.Sleep(500 * time.Millisecond)
				return r.record(body)
			}})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLoginRig(t)
			mount := r.jwtMount(nil)
			jwt := r.issuer.Token(t, jobClaims)
			r.secret(jwt)
			flags := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT"}
			r.ok(r.push(map[string]string{"JWT": jwt}, flags...))
			ready := make(chan struct{})
			tc.hold(r, ready)
			got := r.process(tc.sig, ready, map[string]string{"JWT": jwt}, append([]string{"verify", "--key", r.key(), r.ref()}, flags...)...)
			if got.code != 128+int(tc.sig) {
				t.Errorf("exit code %d: %s", got.code, got.stderr)
			}
			if n := len(r.tokens()); n != 2 {
				t.Errorf("%d tokens, want that of push and that of verify", n)
			}
			r.allRevoked()
		})
	}
}

func holdVerify(r *loginRig, ready chan struct{}) {
	r.proxy.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		if !strings.HasPrefix(q.URL.Path, "/v1/transit/verify/") {
			return false
		}
		close(ready)
		<-q.Context().Done()
		return true
	})
}

// Every other way out.
func TestAFailedCommandRevokesItsToken(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(nil)
	jwt := r.issuer.Token(t, jobClaims)
	r.secret(jwt)
	env := map[string]string{"JWT": jwt}
	flags := []string{"--vault-role", "ci", "--vault-auth-mount", mount, "--vault-jwt-env", "JWT"}
	model := r.write("weights.bin", "weights")
	registry := servertest.FaultProxy(t, r.srv.Registry)
	push := func(more ...string) loginRun {
		args := append([]string{"push", "--sign", "--key", r.key(), "--format", "json", registry.Addr + "/" + r.id + ":v1", model}, flags...)
		return r.run(t.Context(), env, "", append(args, more...)...)
	}

	registry.Fail(servertest.Fault{Status: 403})
	r.refused(push(), 4, "registry_denied")
	r.allRevoked()

	registry.Reset()
	registry.Fail(servertest.Fault{Delay: time.Minute})
	r.refused(push("--timeout", "1s"), 4, "timeout")
	r.allRevoked()

	registry.Reset()
	r.proxy.Fail(servertest.Fault{Path: "transit/sign/", Skip: 1, Status: 503, Body: `{"errors":["Vault is sealed"]}`})
	r.refused(push(), 4, "vault_sealed")
	r.proxy.Reset()
	r.watch(r.proxy)
	r.allRevoked()

	ctx, cancel := context.WithCancelCause(t.Context())
	registry.Intercept(func(_ http.ResponseWriter, q *http.Request) bool {
		cancel(&signalError{syscall.SIGTERM})
		<-q.Context().Done()
		return true
	})
	got := r.run(ctx, env, "", append([]string{"push", "--sign", "--key", r.key(), "--format", "json", registry.Addr + "/" + r.id + ":v1", model}, flags...)...)
	r.refused(got, 143, "interrupted")
	r.allRevoked()

	// Vault does not answer any more: a warning, and the result stays.
	r.proxy.Fail(servertest.Fault{Path: "revoke-self", Status: 403, Body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`})
	if got := r.ok(r.push(env, flags...)); !strings.Contains(got.stderr, "aegis-oci: warning: the Vault token from the jwt login") || !strings.Contains(got.stderr, "was not revoked") {
		t.Errorf("%s", got.stderr)
	}
}
