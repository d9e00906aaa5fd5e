// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// examined runs doctor and returns its lines by name.
func examined(t *testing.T, env map[string]string, wantExitCode int, args ...string) map[string]Check {
	t.Helper()
	r := runCLI(t, env, "", append([]string{"doctor", "--format", "json", "--retry-timeout", "10ms"}, args...)...)
	wantExit(t, r, wantExitCode)
	result := decode[DoctorResult](t, r)
	if result.OK != (wantExitCode == 0) {
		t.Errorf("ok is %v with exit code %d", result.OK, r.exit)
	}
	lines := make(map[string]Check)
	for _, c := range result.Checks {
		if _, twice := lines[c.Name]; twice {
			t.Errorf("%q stands twice", c.Name)
		}
		if c.Status == checkFail && (c.Hint == "" || !strings.Contains(r.stderr, c.Name)) {
			t.Errorf("%q fails without a hint, or is not in the error: %+v\n%s", c.Name, c, r.stderr)
		}
		lines[c.Name] = c
	}
	return lines
}

// says fails unless the line called name has the status, and the texts are in it.
func says(t *testing.T, lines map[string]Check, name, status string, texts ...string) {
	t.Helper()
	c, ok := lines[name]
	if !ok || c.Status != status {
		t.Errorf("%q is %+v, want %s; of %v", name, c, status, lines)
		return
	}
	for _, text := range texts {
		if !strings.Contains(c.Detail+" -> "+c.Hint, text) {
			t.Errorf("%q says %q -> %q, and not %q", name, c.Detail, c.Hint, text)
		}
	}
}

const doctorKey = "key hashivault://models"

func TestDoctorFindsEverythingInOrder(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	for name, tokenRules := range map[string][]string{
		"capabilities asked": {"transit/sign/models", "update", "transit/verify/models", "update", "transit/keys/models", "read",
			"sys/capabilities-self", "update", "auth/token/lookup-self", "read"},
		"capabilities probed": {"transit/sign/models", "update", "transit/verify/models", "update", "transit/keys/models", "read", "auth/token/lookup-self", "read"},
	} {
		lines := examined(t, s.env(limitedToken(t, s.Server, strings.Fields(name)[1], tokenRules...)), 0, "--key", "hashivault://models", s.repo+":v1")
		says(t, lines, "registry", checkOK, "http://"+s.Registry)
		says(t, lines, "registry tls", checkWarn, "plain HTTP")
		says(t, lines, "registry credentials", checkOK, "none known")
		says(t, lines, "registry clock", checkOK, "s apart, at most 5m0s")
		says(t, lines, "reference", checkOK, s.repo+"@"+string(s.pushed.Digest))
		says(t, lines, "referrers", checkOK, "1 referrer attached", "by the referrers API")
		says(t, lines, "vault", checkOK, s.VaultAddr, "version 2.4.0")
		says(t, lines, "vault seal", checkOK, "unsealed and active")
		says(t, lines, "vault clock", checkOK)
		says(t, lines, "vault login", checkOK, "VAULT_TOKEN", "left alone")
		says(t, lines, "vault token", checkOK, "service, lives for another")
		says(t, lines, "may sign", checkOK, "update on transit/sign/models")
		says(t, lines, "may verify", checkOK, "update on transit/verify/models")
		says(t, lines, "may read", checkOK, "read on transit/keys/models")
		says(t, lines, doctorKey, checkOK, "ecdsa-p256, latest version 1")
		if probed := strings.Contains(lines["may sign"].Detail, "by asking"); probed != strings.HasSuffix(name, "probed") {
			t.Errorf("%s: %q", name, lines["may sign"].Detail)
		}
	}
	// No signature was made by looking.
	_, report := s.audit(t, s.auditor, "--repo", s.repo)
	if report.Outcome != "explained" {
		t.Errorf("%+v", report)
	}
}

func TestDoctorKnowsTheSmallestTokens(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	lines := examined(t, s.signing, 0, "--key", "hashivault://models")
	says(t, lines, "registry", checkSkipped)
	says(t, lines, "may sign", checkOK, "found out by asking")
	says(t, lines, "may verify", checkWarn, `path "transit/verify/models" { capabilities = ["update"] }`)
	says(t, lines, "may read", checkWarn, "not needed")
	says(t, lines, doctorKey, checkOK, "of a type that signs")
	says(t, lines, "vault token", checkOK, "may not look itself up")

	runtime := s.env(limitedToken(t, s.Server, "runtime", "transit/verify/models", "update"))
	lines = examined(t, runtime, 0, "--key", "hashivault://models")
	says(t, lines, "may verify", checkOK)
	says(t, lines, "may sign", checkWarn, `path "transit/sign/models" { capabilities = ["update"] }`)

	lines = examined(t, s.auditor, 4, "--key", "hashivault://models")
	says(t, lines, "policy", checkFail, "neither sign nor verify", `path "transit/verify/models"`)
	says(t, lines, doctorKey, checkSkipped)

	lines = examined(t, s.env(s.RootToken), 0, "--key", "hashivault://models")
	says(t, lines, "vault token", checkWarn, "root")
	says(t, lines, "policy", checkWarn, "root on transit/sign/models")
}

func TestDoctorSaysWhatIsWrongWithTheKey(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	s.TransitKey(t, "aes", "aes256-gcm96")
	all := s.env(limitedToken(t, s.Server, "all", "transit/*", "update", "transit/keys/*", "read"))
	lines := examined(t, all, 4, "--key", "hashivault://aes")
	says(t, lines, "key hashivault://aes", checkFail, "aes256-gcm96", "type=ecdsa-p256")
	says(t, lines, "may sign", checkFail, "type=ecdsa-p256")

	lines = examined(t, all, 4, "--key", "hashivault://missing")
	says(t, lines, "key hashivault://missing", checkFail, "no key missing", "vault write transit/keys/missing type=ecdsa-p256")

	lines = examined(t, all, 4, "--key", "hashivault://models?version=7")
	says(t, lines, doctorKey+"?version=7", checkFail, "the latest is 1")

	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, s.PublicKeyPEM(t, "models", 1), 0o600); err != nil {
		t.Fatal(err)
	}
	lines = examined(t, nil, 0, "--key", file)
	says(t, lines, "key "+file, checkOK, "cannot sign")
	says(t, lines, "vault", checkSkipped)
	lines = examined(t, nil, 4, "--key", "hashivault://models")
	says(t, lines, "vault", checkFail, "VAULT_ADDR")
}

func TestDoctorSaysWhatIsWrongWithVault(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	lines := examined(t, map[string]string{"VAULT_ADDR": s.VaultAddr}, 4, "--key", "hashivault://models")
	says(t, lines, "vault seal", checkOK)
	says(t, lines, "vault login", checkFail, "VAULT_TOKEN")

	lines = examined(t, s.env("hvs.unknown"), 4, "--key", "hashivault://models")
	says(t, lines, "vault login", checkFail, "not valid")

	p := servertest.FaultProxy(t, s.VaultAddr)
	env := map[string]string{"VAULT_ADDR": p.URL, "VAULT_TOKEN": s.signing["VAULT_TOKEN"]}
	hour := http.Header{"Date": {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)}}
	p.Fail(servertest.Fault{Path: "/v1/sys/health", Header: hour})
	says(t, examined(t, env, 4), "vault clock", checkFail, "1h0m", "NTP")
	p.Reset()
	p.Fail(servertest.Fault{Path: "/v1/sys/health", Replace: func([]byte) []byte { return []byte("<html>") }})
	says(t, examined(t, env, 4), "vault", checkFail, "is this address a Vault server?")
	p.Down()
	says(t, examined(t, env, 4), "vault", checkFail, "refused")

	s.Seal(t)
	lines = examined(t, s.signing, 4, "--key", "hashivault://models")
	says(t, lines, "vault", checkOK, "2.4.0")
	says(t, lines, "vault seal", checkFail, "sealed", "unseal")
	if _, more := lines["vault login"]; more {
		t.Error("a token was sent to a sealed Vault")
	}
}

func TestDoctorSaysWhatIsWrongWithTheRegistry(t *testing.T) {
	t.Parallel()
	host, _ := servertest.Distribution(t, servertest.Htpasswd(t, "user", "right"))
	ref := host + "/models/vad:v1"
	lines := examined(t, nil, 4, ref)
	says(t, lines, "registry", checkOK)
	says(t, lines, "registry credentials", checkFail, "aegis-oci login")

	r := runCLI(t, nil, "wrong", "doctor", "--format", "json", "-u", "user", "--password-stdin", ref)
	wantExit(t, r, 4, "aegis-oci login "+host+" with other credentials")
	if strings.Contains(r.stdout+r.stderr, "wrong") {
		t.Errorf("the password is printed:\n%s%s", r.stdout, r.stderr)
	}

	pushed := runCLI(t, nil, "right", "push", "-q", "-u", "user", "--password-stdin", ref, smallModel(t, "x"))
	wantExit(t, pushed, 0)
	r = runCLI(t, nil, "right", "doctor", "-u", "user", "--password-stdin", ref)
	wantExit(t, r, 0, "accepted", "0 referrers attached, listed by a tag")
	r = runCLI(t, nil, "right", "doctor", "-u", "user", "--password-stdin", host+"/models/vad:v2")
	wantExit(t, r, 0, "warn     reference", "is not there")

	p := servertest.FaultProxy(t, host)
	p.Fail(servertest.Fault{Path: "/v2/", Status: http.StatusOK, Header: http.Header{"Date": {time.Now().Add(4 * time.Minute).UTC().Format(http.TimeFormat)}}})
	says(t, examined(t, nil, 0, p.Addr+"/models/vad"), "registry clock", checkWarn, "apart, at most 5m0s is allowed", "NTP")
	p.Down()
	says(t, examined(t, nil, 4, p.Addr+"/models/vad"), "registry", checkFail, "cannot be reached")
	wantExit(t, runCLI(t, nil, "", "doctor", "not a reference"), 2)
	wantExit(t, runCLI(t, nil, "", "doctor", "a", "b"), 2)
}

func TestDoctorChecksTLS(t *testing.T) {
	t.Parallel()
	s := servertest.Stack(t, "-tls")
	env := map[string]string{"VAULT_ADDR": s.VaultAddr, "VAULT_TOKEN": s.RootToken, "VAULT_CACERT": s.CAFile}
	lines := examined(t, env, 0, "--ca-file", s.CAFile, s.Registry+"/models/vad")
	says(t, lines, "registry", checkOK, "https://")
	says(t, lines, "registry tls", checkOK, "TLS 1.3")
	says(t, lines, "vault", checkOK, ", TLS")

	delete(env, "VAULT_CACERT")
	lines = examined(t, env, 4, "--cert-file", s.ClientCert, "--key-file", s.ClientKey, s.Registry+"/models/vad")
	says(t, lines, "registry", checkFail, "TLS", "--ca-file")
	says(t, lines, "vault", checkFail, "TLS", "--vault-cacert")
}

// TestDoctorLogsInAndGivesTheTokenBack logs in as a CI job does, and with a role
// that is not there.
func TestDoctorLogsInAndGivesTheTokenBack(t *testing.T) {
	r := newLoginRig(t)
	mount := r.jwtMount(nil)
	args := []string{"doctor", "--format", "json", "--retry-timeout", "10ms", "--vault-auth-mount", mount, "--key", r.key()}
	got := r.ok(r.run(t.Context(), r.github(r.issuer.RequestURL()), "", append(args, "--vault-role", "ci")...))
	lines := make(map[string]Check)
	for _, c := range decode[DoctorResult](t, ran{stdout: got.stdout}).Checks {
		lines[c.Name] = c
	}
	says(t, lines, "vault login", checkOK, "the jwt login at auth/"+mount, "revoked at the end")
	says(t, lines, "vault token", checkOK, "service, lives for another 5m0s")
	says(t, lines, "may sign", checkOK, "found out by asking")
	r.ownTokenRevoked()

	got = r.run(t.Context(), r.github(r.issuer.RequestURL()), "", append(args, "--vault-role", "nobody")...)
	if got.code != 4 {
		t.Fatalf("exit code %d: %s%s", got.code, got.stdout, got.stderr)
	}
	lines = make(map[string]Check)
	for _, c := range decode[DoctorResult](t, ran{stdout: got.stdout}).Checks {
		lines[c.Name] = c
	}
	says(t, lines, "vault seal", checkOK)
	says(t, lines, "vault login", checkFail, "nobody")
}
