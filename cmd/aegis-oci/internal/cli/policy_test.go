// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// outcomeOf is one run of the program.
type outcomeOf struct {
	exit   int
	stdout string
	stderr string
}

// code is the error code of a run with --format json.
func (o outcomeOf) code(t testing.TB) string {
	t.Helper()
	var r struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil {
		t.Fatalf("stdout is not one JSON value: %v\n%s\n%s", err, o.stdout, o.stderr)
	}
	return r.Error.Code
}

// policyRig is a directory for policies, a registry and perhaps a Vault. id makes
// names that no other run has.
type policyRig struct {
	id  string
	srv *servertest.Server
	dir string
	env map[string]string
}

func newPolicyRig(t testing.TB) *policyRig {
	t.Helper()
	srv := servertest.SharedStack(t)
	return &policyRig{id: fmt.Sprint(time.Now().UnixNano()), srv: srv, dir: t.TempDir(), env: map[string]string{"HOME": t.TempDir(), "VAULT_ADDR": srv.VaultAddr}}
}

func (r *policyRig) run(t testing.TB, stdin string, args ...string) outcomeOf {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(stdin), stdout: &stdout, stderr: &stderr, env: environment(maps.Clone(r.env))}
	exit := a.run(context.Background(), append(args, "--retry-timeout", "3s"))
	return outcomeOf{exit: exit, stdout: stdout.String(), stderr: stderr.String()}
}

func (r *policyRig) ok(t testing.TB, args ...string) string {
	t.Helper()
	o := r.run(t, "", args...)
	if o.exit != 0 {
		t.Fatalf("aegis-oci %s: exit %d\n%s%s", strings.Join(args, " "), o.exit, o.stdout, o.stderr)
	}
	return o.stdout
}

// refused runs with --format json and asserts exit code and error code.
func (r *policyRig) refused(t testing.TB, exit int, code string, args ...string) outcomeOf {
	t.Helper()
	o := r.run(t, "", append(args, "--format", "json")...)
	if o.exit != exit || o.code(t) != code {
		t.Errorf("aegis-oci %s: exit %d, want %d and code %s\n%s%s", strings.Join(args, " "), o.exit, exit, code, o.stdout, o.stderr)
	}
	return o
}

func (r *policyRig) file(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(r.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// policy writes a policy of one statement for everything; rest are its fields.
func (r *policyRig) policy(t testing.TB, rest ...string) string {
	t.Helper()
	return r.file(t, fmt.Sprintf("policy-%d.yaml", time.Now().UnixNano()), "version: 1\npolicies:\n- name: all\n  scopes: [\"*\"]\n  "+strings.Join(rest, "\n  ")+"\n")
}

// as gives the following runs a token that may do what rules, pairs of path and
// capability, say.
func (r *policyRig) as(t testing.TB, rules ...string) {
	t.Helper()
	var hcl strings.Builder
	for i := 0; i < len(rules); i += 2 {
		fmt.Fprintf(&hcl, "path %q { capabilities = [%q] }\n", rules[i], rules[i+1])
	}
	policy := fmt.Sprintf("cli-%d", time.Now().UnixNano())
	r.srv.Policy(t, policy, hcl.String())
	r.env["VAULT_TOKEN"] = r.srv.Token(t, map[string]any{"policies": []string{policy}, "no_default_policy": true, "ttl": "10m"})
}

func (r *policyRig) ref(t testing.TB, tag string) string {
	return r.srv.Registry + "/" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())) + r.id + ":" + tag
}

func (r *policyRig) model(t testing.TB, content string) string {
	t.Helper()
	r.file(t, "model/weights.bin", content)
	return filepath.Join(r.dir, "model")
}

// signedBy pushes a model that software keys sign, with claims as they say.
func (r *policyRig) signedBy(t testing.TB, ref string, offset time.Duration, s aegis.Signing, keys ...*testkey.Key) {
	t.Helper()
	reg, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := registry.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	c := aegis.New(reg, aegis.Options{Now: func() time.Time { return time.Now().Add(offset) }})
	if _, err := c.Push(context.Background(), aegis.PushOptions{Ref: parsed, Paths: []string{r.model(t, ref)}}); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		s.Signer = k
		if _, err := c.Sign(context.Background(), parsed, s); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCLITwoTransitSigners(t *testing.T) {
	r := newPolicyRig(t)
	one, two := "one-"+r.id, "two-"+r.id
	r.srv.TransitKey(t, one, "ecdsa-p256")
	r.srv.TransitKey(t, two, "rsa-3072")
	ref := r.ref(t, "v1")
	r.as(t, "transit/sign/"+one, "update", "transit/sign/"+two, "update", "transit/keys/"+one, "read", "transit/keys/"+two, "read")
	r.ok(t, "push", "--sign", "--key", "hashivault://"+one, ref, r.model(t, "w"))
	policy := r.policy(t, "require: 2", "requireRepository: true", "maxAge: {of: claim, is: 1h}", "keys:",
		`- {name: one, key: "hashivault://`+one+`"}`, `- {name: two, key: "hashivault://transit/`+two+`"}`)
	verifyOnly := []string{"transit/verify/" + one, "update", "transit/verify/" + two, "update"}
	r.as(t, append(verifyOnly, "transit/keys/"+one, "read", "transit/keys/"+two, "read")...)
	dst := filepath.Join(r.dir, "out", "model")
	r.refused(t, 3, "too_few_signers", "pull", "--policy", policy, "-o", dst, ref)
	if _, err := os.Stat(filepath.Dir(dst)); err == nil {
		entries, _ := os.ReadDir(filepath.Dir(dst))
		if len(entries) != 0 {
			t.Errorf("a refused pull left %v", entries)
		}
	}
	r.as(t, "transit/sign/"+two, "update", "transit/keys/"+two, "read")
	r.ok(t, "sign", "--key", "hashivault://"+two, ref)

	r.as(t, append(verifyOnly, "transit/keys/"+one, "read", "transit/keys/"+two, "read")...)
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		t.Fatal(err)
	}
	var pulled aegis.PullResult
	if err := json.Unmarshal([]byte(r.ok(t, "pull", "--format", "json", "--policy", policy, "-o", dst, ref)), &pulled); err != nil {
		t.Fatal(err)
	}
	if len(pulled.Signatures) != 2 || pulled.Policy != "all" || !pulled.Verified {
		t.Errorf("pulled %+v", pulled)
	}
	r.ok(t, "verify", "--policy", policy, "--ref", ref, "--dir", dst)

	r.as(t, verifyOnly...)
	o := r.refused(t, 4, "key_unreadable", "verify", "--policy", policy, ref)
	if !strings.Contains(o.stderr, `"read"`) || !strings.Contains(o.stderr, "public") {
		t.Errorf("the error does not say what is missing: %s", o.stderr)
	}
	r.file(t, "one.pub", string(r.srv.PublicKeyPEM(t, one, 0)))
	r.file(t, "two.pub", string(r.srv.PublicKeyPEM(t, two, 0)))
	beside := r.policy(t, "require: 2", "keys:", `- {name: one, key: "hashivault://`+one+`", publicKeyFile: one.pub}`, `- {name: two, key: "hashivault://`+two+`", publicKeyFile: two.pub}`)
	r.ok(t, "verify", "--policy", beside, ref)
}

// TestCLIEachRule has one rule a row, over one artifact whose signature claims a
// repository, a builder and an annotation.
func TestCLIEachRule(t *testing.T) {
	r := newPolicyRig(t)
	k, ref := testkey.New(t, signature.ECDSAP256), r.ref(t, "v1")
	r.signedBy(t, ref, -2*time.Hour, aegis.Signing{
		Annotations: map[string]string{"env": "prod"}, Builder: map[string]string{"ref": "refs/heads/main"},
	}, k)
	r.file(t, "keys/k.pub", string(k.PEM()))
	keys := []string{"keys:", "- {name: k, publicKeyFile: keys/k.pub}"}
	subject := strings.TrimSpace(r.ok(t, "verify", "--key", filepath.Join(r.dir, "keys/k.pub"), "--format", "go-template={{.digest}}", ref))
	for rule, row := range map[string]struct{ good, bad, code string }{
		"formats":           {"formats: [sigstore, oms]", "formats: [notary]", "format_not_allowed"},
		"maxAge":            {"maxAge: {of: claim, is: 3h}", "maxAge: {of: claim, is: 1h}", "too_old"},
		"timestamp":         {"require: 1", "maxAge: {of: timestamp, is: 3h}", "too_old"},
		"notBefore":         {"notBefore: 2020-01-01T00:00:00Z", "notBefore: " + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "not_before"},
		"annotations":       {"annotations: {env: prod}", "annotations: {env: dev}", "annotation_differs"},
		"builder":           {"builder: {ref: refs/heads/main}", "builder: {ref: refs/heads/x}", "builder_differs"},
		"revoked":           {"revoked: {subjects: [\"sha256:" + strings.Repeat("0", 64) + "\"]}", "revoked: {subjects: [\"" + subject + "\"]}", "revoked"},
		"requireRepository": {"requireRepository: true", "", ""},
	} {
		t.Run(rule, func(t *testing.T) {
			r.ok(t, "verify", "--policy", r.policy(t, append([]string{row.good}, keys...)...), ref)
			if row.bad != "" {
				r.refused(t, 3, row.code, "verify", "--policy", r.policy(t, append([]string{row.bad}, keys...)...), ref)
			}
		})
	}
	// What -a asks for is asked besides, and cannot contradict.
	prod := r.policy(t, append([]string{"annotations: {env: prod}"}, keys...)...)
	r.refused(t, 3, "annotation_differs", "verify", "-a", "team=x", "--policy", prod, ref)
	r.refused(t, 2, "usage", "verify", "-a", "env=dev", "--policy", prod, ref)
}

func TestCLIExpiredAndFutureDated(t *testing.T) {
	r := newPolicyRig(t)
	k := testkey.New(t, signature.ECDSAP256)
	r.file(t, "k.pub", string(k.PEM()))
	policy := r.policy(t, "keys:", "- {name: k, publicKeyFile: k.pub}")
	r.signedBy(t, r.ref(t, "expired"), -2*time.Hour, aegis.Signing{Expiry: time.Hour}, k)
	r.refused(t, 3, "expired", "verify", "--policy", policy, r.ref(t, "expired"))
	r.signedBy(t, r.ref(t, "future"), time.Hour, aegis.Signing{}, k)
	r.refused(t, 3, "signed_in_future", "verify", "--policy", policy, r.ref(t, "future"))
}

func TestCLIRevokedVersions(t *testing.T) {
	r := newPolicyRig(t)
	name := "rotated-" + r.id
	key := "hashivault://" + name
	r.srv.TransitKey(t, name, "ecdsa-p256")
	ref := r.ref(t, "v1")
	all := []string{"transit/sign/" + name, "update", "transit/verify/" + name, "update", "transit/keys/" + name, "read"}
	r.as(t, all...)
	r.ok(t, "push", "--sign", "--key", key, ref, r.model(t, "w"))
	r.srv.RotateKey(t, name)
	entry := `- {name: release, key: "` + key + `"}`
	minimum := r.policy(t, "keys:", `- {name: release, key: "`+key+`", minVersion: 2}`)
	revoked := r.policy(t, `revoked: {keys: ["release@1"]}`, "keys:", entry)
	list := r.file(t, "revoked.yaml", `keys: ["`+key+`@1"]`+"\n")
	r.as(t, all[2:4]...)
	for args, code := range map[string]string{
		"--policy " + minimum:                 "key_version_too_old",
		"--policy " + revoked:                 "revoked",
		"--key " + key + " --revoked " + list: "revoked",
	} {
		r.refused(t, 3, code, append(append([]string{"verify"}, strings.Fields(args)...), ref)...)
	}
	r.as(t, all...)
	r.ok(t, "sign", "--key", key, ref)
	r.as(t, all[2:4]...)
	r.ok(t, "verify", "--policy", minimum, ref)
	r.ok(t, "verify", "--policy", revoked, ref)
	r.ok(t, "verify", "--key", key, "--revoked", list, ref)

	typo := r.file(t, "typo.yaml", `keys: ["`+key+`x@1"]`+"\n")
	r.refused(t, 2, "usage", "verify", "--key", key, "--revoked", typo, ref)
	r.refused(t, 2, "usage", "verify", "--policy", minimum, "--revoked", list, ref)
	r.refused(t, 2, "usage", "verify", "--key", key, "--revoked", filepath.Join(r.dir, "none"), ref)
}

// TestCLIPolicyWithAVaultOfAnEntrysOwn has two Vaults, one of which speaks TLS
// with a CA that only the policy names.
func TestCLIPolicyWithAVaultOfAnEntrysOwn(t *testing.T) {
	r := newPolicyRig(t)
	name := "shared-" + r.id
	other := servertest.Stack(t, "-tls")
	token := fmt.Sprintf("policy-test-%d", time.Now().UnixNano())
	for _, srv := range []*servertest.Server{r.srv, other} {
		srv.TransitKey(t, name, "ecdsa-p256")
		srv.Policy(t, "verifier-"+r.id, `path "transit/+/`+name+`" { capabilities = ["update", "read"] }`)
		srv.Token(t, map[string]any{"id": token, "policies": []string{"verifier-" + r.id}, "ttl": "10m", "no_default_policy": true})
	}
	r.env["VAULT_TOKEN"] = token
	ref := r.ref(t, "v1")
	ca, err := os.ReadFile(other.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	r.file(t, "vault/ca.pem", string(ca))
	r.ok(t, "push", "--sign", "--key", "hashivault://"+name, ref, r.model(t, "w"))
	own := fmt.Sprintf(`- {name: theirs, key: "hashivault://`+name+`", vault: {address: %q, caFile: vault/ca.pem}}`, other.VaultAddr)
	ours := `- {name: ours, key: "hashivault://` + name + `"}`
	both := r.policy(t, "require: 2", "keys:", ours, own)
	r.refused(t, 3, "too_few_signers", "verify", "--policy", both, ref)
	r.refused(t, 3, "rejected", "verify", "--policy", r.policy(t, "keys:", own), ref)
	r.ok(t, "sign", "--key", "hashivault://"+name, "--vault-addr", other.VaultAddr, "--vault-cacert", other.CAFile, ref)
	r.ok(t, "verify", "--policy", both, ref)
	r.ok(t, "verify", "--policy", r.policy(t, "keys:", own), ref)
	withoutCA := strings.Replace(own, ", caFile: vault/ca.pem", "", 1)
	r.refused(t, 4, "vault_tls", "verify", "--policy", r.policy(t, "keys:", withoutCA), ref)
}

func TestCLIPolicyFromAnywhere(t *testing.T) {
	r := newPolicyRig(t)
	k, ref := testkey.New(t, signature.ECDSAP256), r.ref(t, "v1")
	r.signedBy(t, ref, 0, aegis.Signing{}, k)
	// As Kubernetes mounts a ConfigMap: names that link into a folder that links.
	r.file(t, "mount/..2026/policy.yaml", "version: 1\npolicies:\n- {name: all, scopes: [\"*\"], keys: [{name: k, publicKeyFile: k.pub}]}\n")
	r.file(t, "mount/..2026/k.pub", string(k.PEM()))
	for link, target := range map[string]string{"..data": "..2026", "policy.yaml": "..data/policy.yaml", "k.pub": "..data/k.pub"} {
		if err := os.Symlink(target, filepath.Join(r.dir, "mount", link)); err != nil {
			t.Fatal(err)
		}
	}
	r.ok(t, "verify", "--policy", filepath.Join(r.dir, "mount", "policy.yaml"), ref)

	inline, err := json.Marshal(string(k.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	doc := `{"version": 1, "policies": [{"name": "all", "scopes": ["*"], "keys": [{"name": "k", "publicKey": ` + string(inline) + `}]}]}`
	if o := r.run(t, doc, "verify", "--policy", "-", ref); o.exit != 0 {
		t.Errorf("from standard input: exit %d: %s", o.exit, o.stderr)
	}
	r.env["TRUST"] = doc
	r.ok(t, "verify", "--policy", "env://TRUST", ref)
	r.env["AEGIS_POLICY"] = "env://TRUST"
	r.ok(t, "verify", ref)
	delete(r.env, "AEGIS_POLICY")
	r.refused(t, 2, "usage", "verify", "--policy", "env://NOT_SET", ref)
	r.refused(t, 2, "usage", "verify", "--policy", filepath.Join(r.dir, "none.yaml"), ref)
	r.refused(t, 2, "policy_invalid", "verify", "--policy", "-", ref) // an empty one
	if o := r.run(t, strings.Repeat("#", 1<<20+1), "verify", "--policy", "-", ref); o.exit != 2 {
		t.Errorf("a huge document: exit %d", o.exit)
	}
}

func TestCLIPolicyThatCannotBeTrustedIsAUsageError(t *testing.T) {
	r := newPolicyRig(t)
	k, ref := testkey.New(t, signature.ECDSAP256), r.ref(t, "v1")
	r.file(t, "k.pub", string(k.PEM()))
	for name, fields := range map[string][]string{
		"one key under two names": {"keys:", "- {name: a, publicKeyFile: k.pub}", "- {name: b, publicKeyFile: ./k.pub}"},
		"an unknown field":        {"threshold: 2", "keys:", "- {name: a, publicKeyFile: k.pub}"},
		"more signers than keys":  {"require: 2", "keys:", "- {name: a, publicKeyFile: k.pub}"},
	} {
		t.Run(name, func(t *testing.T) {
			policy := r.policy(t, fields...)
			r.refused(t, 2, "policy_invalid", "policy", "check", "--policy", policy)
			r.refused(t, 2, "policy_invalid", "pull", "--policy", policy, "-o", filepath.Join(r.dir, "out"), ref)
			if _, err := os.Stat(filepath.Join(r.dir, "out")); err == nil {
				t.Error("something was left")
			}
		})
	}
	missing := r.policy(t, "keys:", "- {name: a, publicKeyFile: none.pub}")
	r.refused(t, 2, "usage", "policy", "check", "--policy", missing)
	r.refused(t, 2, "usage", "policy", "check")
	r.refused(t, 2, "usage", "policy")
	r.refused(t, 2, "usage", "policy", "chek")
}

func TestCLIPolicyInitCheckTest(t *testing.T) {
	r := newPolicyRig(t)
	delete(r.env, "VAULT_ADDR")
	k := testkey.New(t, signature.Ed25519)
	r.file(t, "it's.pub", string(k.PEM()))
	path := filepath.Join(r.dir, "policy.yaml")
	args := []string{"policy", "init", "--scope", "registry.example.com/models/**", "--key", "hashivault://transit/release", "--key", "it's.pub", "--require", "2"}
	document := r.ok(t, args...)
	r.ok(t, append(args, "-o", path)...)
	written, err := os.ReadFile(path)
	if err != nil || string(written) != document {
		t.Errorf("the file is not what is printed: %v\n%s", err, written)
	}
	r.refused(t, 2, "usage", append(args, "-o", path)...)
	r.refused(t, 2, "policy_invalid", "policy", "init", "--scope", "models/**", "--key", "k.pub")
	if out := r.ok(t, "policy", "check", "--policy", path); !strings.Contains(out, "2 of key-1, key-2") {
		t.Errorf("check says %s", out)
	}
	out := r.ok(t, "policy", "test", "--policy", path, "--format", "json", "registry.example.com/models/vad:v1")
	var got policyTestResult
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.Statement.Name != "models" || got.Statement.Require != 2 || !got.Statement.RequireRepository {
		t.Errorf("%+v, %v", got, err)
	}
	r.refused(t, 3, "policy_no_match", "policy", "test", "--policy", path, "registry.example.com/tools/vad:v1")
}

// TestCLIExplainAndReplay explains decisions of each kind, and decides them again
// without anybody to ask.
func TestCLIExplainAndReplay(t *testing.T) {
	r := newPolicyRig(t)
	name := "explained-" + r.id
	r.srv.TransitKey(t, name, "ecdsa-p256")
	k, stranger, ref := testkey.New(t, signature.ECDSAP256), testkey.New(t, signature.ECDSAP256), r.ref(t, "v1")
	r.signedBy(t, ref, 0, aegis.Signing{Annotations: map[string]string{"env": "dev\x1b[2J"}}, k, stranger)
	r.as(t, "transit/sign/"+name, "update", "transit/verify/"+name, "update")
	r.ok(t, "sign", "--key", "hashivault://"+name, ref)
	r.file(t, "k.pub", string(k.PEM()))
	local, transit := "- {name: local, publicKeyFile: k.pub}", `- {name: transit, key: "hashivault://`+name+`"}`
	offline := &policyRig{dir: r.dir, env: map[string]string{"HOME": r.dir}}
	for want, policy := range map[string]string{
		"accepted":  r.policy(t, "keys:", local, transit),
		"rejected":  r.policy(t, "annotations: {env: prod}", "keys:", local, transit),
		"undecided": r.policy(t, "require: 2", "keys:", local, transit),
	} {
		text := r.ok(t, "policy", "explain", "--policy", policy, ref)
		if !strings.Contains(text, "decision   "+want) || !strings.Contains(text, "signature") || strings.Contains(text, "\x1b") {
			t.Errorf("explained as\n%s", text)
		}
		record := r.file(t, "record-"+want+".json", r.ok(t, "policy", "explain", "--format", "json", "--policy", policy, ref))
		var replayed aegis.ReplayResult
		if err := json.Unmarshal([]byte(offline.ok(t, "policy", "replay", "--format", "json", record)), &replayed); err != nil {
			t.Fatal(err)
		}
		if !replayed.Same || replayed.Decision.Outcome != want || strings.Join(replayed.VerifiedAgain, " ") != "local" || strings.Join(replayed.AsRecorded, " ") != "transit" {
			t.Errorf("replayed %+v", replayed)
		}
		raw, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(raw), r.env["VAULT_TOKEN"]) {
			t.Error("the record holds the token")
		}
		doctored := r.file(t, "doctored.json", strings.Replace(string(raw), `"outcome": "`+want+`"`, `"outcome": "unsigned"`, 1))
		offline.refused(t, 3, "record_differs", "policy", "replay", doctored)
		if o := offline.run(t, string(raw), "policy", "replay", "-"); o.exit != 0 {
			t.Errorf("from standard input: %d %s", o.exit, o.stderr)
		}
	}
	offline.refused(t, 2, "record_invalid", "policy", "replay", r.file(t, "empty.json", "{}"))
	narrow := r.file(t, "narrow.yaml", "version: 1\npolicies:\n- {name: n, scopes: [r.io/x], keys: [{name: k, publicKeyFile: k.pub}]}\n")
	r.refused(t, 3, "policy_no_match", "policy", "explain", "--policy", narrow, ref)
}
