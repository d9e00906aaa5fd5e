// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// loginRig is a Vault with one key, reached through a proxy that counts, and a
// record of every secret that was in play. At the end none of them may be in any
// stream or file that a run has left.
type loginRig struct {
	t      *testing.T
	srv    *servertest.Server
	proxy  *servertest.Proxy
	addr   string // of the proxy, which may go down and up
	issuer *servertest.Issuer
	id     string // names the key, the policy, the mounts and the repository
	out    string // what runs write
	in     string // what runs are given, secrets among it
	pub    string
	files  int

	mu      sync.Mutex
	secrets []string
	streams []string
	start   int // of the audit log
}

// rigs counts them.
var rigs atomic.Int64

func newLoginRig(t *testing.T) *loginRig {
	t.Helper()
	srv := servertest.SharedStack(t)
	r := &loginRig{t: t, srv: srv, issuer: servertest.OIDC(t), proxy: servertest.FaultProxy(t, srv.VaultAddr), out: t.TempDir(), in: t.TempDir()}
	// The server outlives a test that is run again (-count=2).
	r.id = fmt.Sprintf("rig-%s-%d", strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test"))), rigs.Add(1))
	srv.TransitKey(t, r.id, "ecdsa-p256")
	r.pub = r.write("release.pub", string(srv.PublicKeyPEM(t, r.id, 0)))
	srv.Policy(t, r.id, fmt.Sprintf(`
		path "transit/sign/%[1]s" { capabilities = ["update"] }
		path "transit/verify/%[1]s" { capabilities = ["update"] }
		path "auth/token/revoke-self" { capabilities = ["update"] }`, r.id))
	r.secret(r.issuer.RequestToken, srv.RootToken)
	r.addr = r.proxy.URL
	r.watch(r.proxy)
	r.start = len(srv.AuditEntries(t))
	t.Cleanup(r.leaks)
	return r
}

// watch keeps what the server hands out, so that leaks knows it.
func (r *loginRig) watch(p *servertest.Proxy) {
	p.Fail(servertest.Fault{Path: "/login", Replace: r.record})
	p.Fail(servertest.Fault{Path: "/wrapping/unwrap", Replace: r.record})
}

func (r *loginRig) record(body []byte) []byte {
	var answer struct {
		Auth struct {
			ClientToken string `json:"client_token"`
		} `json:"auth"`
		Data struct {
			SecretID string `json:"secret_id"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &answer) == nil {
		r.secret(answer.Auth.ClientToken, answer.Data.SecretID)
	}
	return body
}

func (r *loginRig) secret(values ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range values {
		if v != "" {
			r.secrets = append(r.secrets, v)
		}
	}
}

// known are the secrets so far.
func (r *loginRig) known() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.secrets)
}

// tokens are those that a login has given out.
func (r *loginRig) tokens() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.secrets), func(s string) bool {
		return !strings.HasPrefix(s, "s.") && !strings.HasPrefix(s, "hvs.") && !strings.HasPrefix(s, "b.") && !strings.HasPrefix(s, "hvb.") || s == r.srv.RootToken
	})
}

// write makes an input file.
func (r *loginRig) write(name, content string) string {
	r.t.Helper()
	path := filepath.Join(r.in, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// role is what every method's roles have in common.
func (r *loginRig) role(more map[string]any) map[string]any {
	role := map[string]any{"token_policies": []string{r.id}, "token_no_default_policy": true, "token_ttl": "5m"}
	maps.Copy(role, more)
	return role
}

// jwtMount makes a jwt auth method with the role ci.
func (r *loginRig) jwtMount(more map[string]any) string {
	r.t.Helper()
	mount := r.id + "/jwt"
	r.srv.Write(r.t, "sys/auth/"+mount, map[string]any{"type": "jwt"})
	r.srv.Write(r.t, "auth/"+mount+"/config", map[string]any{"oidc_discovery_url": r.issuer.URL})
	role := r.role(map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": []string{"vault"},
		"bound_claims": map[string]any{"repository": "acme/models"},
	})
	maps.Copy(role, more)
	r.srv.Write(r.t, "auth/"+mount+"/role/ci", role)
	r.issuer.JobClaims(jobClaims)
	return mount
}

// jobClaims are GitHub's, more than may be signed.
var jobClaims = map[string]any{
	"sub": "repo:acme/models:ref:refs/heads/main", "repository": "acme/models", "ref": "refs/heads/main",
	"sha": "0123456789abcdef0123456789abcdef01234567", "run_id": "4711", "actor": "somebody",
	"workflow_ref": "acme/models/.github/workflows/release.yml@refs/heads/main",
}

// github is a job's environment.
func (r *loginRig) github(url string) map[string]string {
	return map[string]string{requestURL: url, requestToken: r.issuer.RequestToken}
}

// appRole makes an AppRole and returns its role_id.
func (r *loginRig) appRole(mount string, more map[string]any) string {
	r.t.Helper()
	r.srv.Write(r.t, "sys/auth/"+mount, map[string]any{"type": "approle"})
	role := r.role(more)
	r.srv.Write(r.t, "auth/"+mount+"/role/ci", role)
	data, _ := r.srv.Read(r.t, "auth/"+mount+"/role/ci/role-id")["data"].(map[string]any)
	return data["role_id"].(string)
}

func (r *loginRig) secretID(mount string) string {
	r.t.Helper()
	data, _ := r.srv.Write(r.t, "auth/"+mount+"/role/ci/secret-id", map[string]any{})["data"].(map[string]any)
	id := data["secret_id"].(string)
	r.secret(id)
	return id
}

// loginRun is one run of the program.
type loginRun struct {
	code           int
	stdout, stderr string
}

// run runs the program against the rig's Vault with --debug and a termination log.
func (r *loginRig) run(ctx context.Context, env map[string]string, stdin string, args ...string) loginRun {
	r.t.Helper()
	all := environment{"VAULT_ADDR": r.addr, "HOME": r.out}
	maps.Copy(all, env)
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, env: all}
	args = append([]string{args[0], "--retry-timeout", "3s"}, args[1:]...)
	args = append(args, "--debug", "--termination-log", filepath.Join(r.out, fmt.Sprintf("termination-%d", r.files)))
	r.files++
	got := loginRun{code: a.run(ctx, args), stdout: stdout.String(), stderr: stderr.String()}
	r.streams = append(r.streams, got.stdout, got.stderr)
	return got
}

// ref names a model of the rig's own.
func (r *loginRig) ref() string { return r.srv.Registry + "/" + r.id + ":v1" }

// key is the rig's key, as --key has it.
func (r *loginRig) key() string { return "hashivault://" + r.id }

// push signs and pushes a small model.
func (r *loginRig) push(env map[string]string, flags ...string) loginRun {
	r.t.Helper()
	return r.pushWith(r.t.Context(), env, "", flags...)
}

func (r *loginRig) pushWith(ctx context.Context, env map[string]string, stdin string, flags ...string) loginRun {
	r.t.Helper()
	model := r.write("weights.bin", "weights of "+r.id)
	args := []string{"push", "--sign", "--key", r.key(), "--format", "json", "--bundle", filepath.Join(r.out, "bundle.json"), r.ref(), model}
	if r.pub != "" {
		args = append(args, "--public-key", r.pub)
	}
	return r.run(ctx, env, stdin, append(args, flags...)...)
}

// early is a run that ends within half a second.
func (r *loginRig) early(done <-chan loginRun) (loginRun, bool) {
	select {
	case got := <-done:
		return got, true
	case <-time.After(500 * time.Millisecond):
		return loginRun{}, false
	}
}

// ok fails unless the run has succeeded.
func (r *loginRig) ok(got loginRun) loginRun {
	r.t.Helper()
	if got.code != 0 {
		r.t.Fatalf("exit code %d:\n%s", got.code, got.stderr)
	}
	return got
}

// refused fails unless the run ended with this exit code and error code, in its
// JSON and in the termination log, and said each of texts.
func (r *loginRig) refused(got loginRun, exit int, code string, texts ...string) {
	r.t.Helper()
	var failure struct {
		Error struct{ Code, Message string }
	}
	if err := json.Unmarshal([]byte(got.stdout), &failure); err != nil || failure.Error.Code != code || got.code != exit {
		r.t.Fatalf("exit code %d, want %d; error %+v, want %q\n%s", got.code, exit, failure.Error, code, got.stderr)
	}
	log, err := os.ReadFile(filepath.Join(r.out, fmt.Sprintf("termination-%d", r.files-1)))
	if err != nil || !strings.HasPrefix(string(log), code+": ") || strings.Count(string(log), "\n") != 1 {
		r.t.Errorf("termination log %q: %v", log, err)
	}
	for _, text := range texts {
		if !strings.Contains(failure.Error.Message, text) {
			r.t.Errorf("the error lacks %q: %s", text, failure.Error.Message)
		}
	}
}

// requests lists what Vault was asked since the last call, without /v1/, the key's
// and the mounts' own names shortened.
func (r *loginRig) requests() []string {
	var asked []string
	for _, q := range r.proxy.Requests() {
		path := strings.TrimPrefix(q.Path, "/v1/")
		asked = append(asked, q.Method+" "+strings.ReplaceAll(path, r.id, "K"))
	}
	r.proxy.Reset()
	r.watch(r.proxy)
	return asked
}

func (r *loginRig) wantRequests(want ...string) {
	r.t.Helper()
	if got := r.requests(); !slices.Equal(got, want) {
		r.t.Errorf("requests\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// audited is what the audit log holds of the rig's requests: the path, and the
// HMAC of the token's accessor.
func (r *loginRig) audited() (entries [][2]string) {
	r.t.Helper()
	for _, e := range r.srv.AuditEntries(r.t)[r.start:] {
		request, _ := e["request"].(map[string]any)
		path, _ := request["path"].(string)
		auth, _ := e["auth"].(map[string]any)
		if strings.HasSuffix(path, "/login") {
			response, _ := e["response"].(map[string]any)
			auth, _ = response["auth"].(map[string]any)
			if auth == nil {
				auth, _ = e["auth"].(map[string]any)
			}
		}
		accessor, _ := auth["accessor"].(string)
		if e["type"] == "response" && accessor != "" {
			entries = append(entries, [2]string{path, accessor})
		}
	}
	return entries
}

// ownTokenRevoked asserts by the audit log that the token of every use of the key
// came from a login and was revoked, and that every login's token was.
func (r *loginRig) ownTokenRevoked() {
	r.t.Helper()
	logins, revoked, used := map[string]bool{}, map[string]int{}, map[string]bool{}
	for _, e := range r.audited() {
		switch path, accessor := e[0], e[1]; {
		case strings.HasSuffix(path, "/login") && strings.Contains(path, r.id):
			logins[accessor] = true
		case path == "auth/token/revoke-self":
			revoked[accessor]++
		case strings.HasSuffix(path, "/"+r.id) && strings.HasPrefix(path, "transit/sign"), strings.HasPrefix(path, "transit/verify/"+r.id):
			used[accessor] = true
		}
	}
	if len(logins) == 0 || len(used) == 0 {
		r.t.Fatalf("the audit log shows %d logins and %d tokens in use", len(logins), len(used))
	}
	for accessor := range logins {
		if revoked[accessor] != 1 {
			r.t.Errorf("the token of a login was revoked %d times", revoked[accessor])
		}
	}
	for accessor := range used {
		if !logins[accessor] {
			r.t.Error("the key was used with a token that no login has given")
		}
	}
}

// leaks greps every stream and file of every run for every secret.
func (r *loginRig) leaks() {
	if len(r.known()) < 2 || len(r.streams) == 0 {
		r.t.Error("the rig has seen no secret or no run: nothing was searched")
	}
	r.search("a stream", strings.Join(r.streams, "\n"))
	err := filepath.WalkDir(r.out, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		r.search(path, string(content))
		return err
	})
	if err != nil {
		r.t.Error(err)
	}
}

// search looks for the secrets as they are and inside base64 text, at each of its
// three alignments.
func (r *loginRig) search(where, text string) {
	for _, s := range r.known() {
		forms := []string{s}
		for shift := range 3 {
			// Whole groups of three bytes, away from what comes before and after.
			inner := s[(3-shift)%3:]
			forms = append(forms, base64.RawStdEncoding.EncodeToString([]byte(inner[:len(inner)/3*3])))
		}
		for _, f := range forms {
			if strings.Contains(text, f) {
				r.t.Errorf("%s holds a secret (%s...)", where, s[:4])
			}
		}
	}
}
