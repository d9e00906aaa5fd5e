// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/internal/testkey"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/auditlog"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// audited is a server of the test's own, whose log nobody else writes to, with a
// key and one signed model.
type audited struct {
	*servertest.Server
	repo    string
	signing map[string]string
	auditor map[string]string
	pushed  aegis.PushResult
}

func newAudited(t *testing.T, args ...string) *audited {
	t.Helper()
	s := &audited{Server: servertest.Stack(t, args...)}
	s.TransitKey(t, "models", "ecdsa-p256")
	s.repo = s.Registry + "/models/vad"
	s.signing = s.env(limitedToken(t, s.Server, "ci", "transit/sign/models", "update"))
	s.auditor = s.env(limitedToken(t, s.Server, "auditor", "sys/audit-hash/file", "update"))
	r := runCLI(t, s.signing, "", "push", "--quiet", "--format", "json", "--sign", "--key", "hashivault://models", s.repo+":v1", smallModel(t, "one"))
	wantExit(t, r, 0)
	s.pushed = decode[aegis.PushResult](t, r)
	return s
}

func (s *audited) env(token string) map[string]string {
	return map[string]string{"VAULT_ADDR": s.VaultAddr, "VAULT_TOKEN": token}
}

// audit runs vault audit over the server's own log.
func (s *audited) audit(t *testing.T, env map[string]string, args ...string) (ran, auditlog.Report) {
	t.Helper()
	r := runCLI(t, env, "", append([]string{"vault", "audit", "--format", "json", "--log", s.AuditLog}, args...)...)
	return r, decode[auditlog.Report](t, r)
}

// signer signs as another tool would: one message a request, and no hints that
// aegis-oci would leave. hint is what it claims for a key version.
type signer struct {
	t    *testing.T
	s    *audited
	hint int
}

func (g signer) ID() signature.KeyID { return signature.KeyID{Name: "another tool"} }

func (g signer) Sign(_ context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	var out []signature.Primitive
	for _, m := range msgs {
		_, answer := g.s.Do(g.t, "PUT", "transit/sign/models", g.s.signing["VAULT_TOKEN"],
			map[string]any{"input": base64.StdEncoding.EncodeToString(m.Bytes), "hash_algorithm": "sha2-256"})
		text := answer["data"].(map[string]any)["signature"].(string)
		raw, err := base64.StdEncoding.DecodeString(text[strings.LastIndexByte(text, ':')+1:])
		if err != nil {
			return nil, err
		}
		out = append(out, signature.Primitive{Signature: raw, KeyVersion: g.hint})
	}
	return out, nil
}

func (s *audited) signWith(t *testing.T, key signature.Signer, tag string) {
	t.Helper()
	reg, err := registry.NewClient(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := registry.ParseReference(s.repo + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := aegis.New(reg, aegis.Options{}).Sign(t.Context(), ref, aegis.Signing{Signer: key}); err != nil {
		t.Fatal(err)
	}
}

func TestVaultAuditProvesWhoMadeEverySignature(t *testing.T) {
	t.Parallel()
	for _, registryKind := range [][]string{nil, {"-no-referrers"}} {
		t.Run(strings.Join(append([]string{"referrers"}, registryKind...), ""), func(t *testing.T) {
			t.Parallel()
			s := newAudited(t, registryKind...)
			s.signWith(t, signer{t, s, 0}, "v1") // no hint
			s.RotateKey(t, "models")
			s.signWith(t, signer{t, s, 1}, "v1") // made by version 2, says 1
			s.RotateKey(t, "models")
			s.signWith(t, signer{t, s, 3}, "v1")
			wantExit(t, runCLI(t, nil, "", "tag", "--quiet", s.repo+":v1", "stable"), 0)

			r, report := s.audit(t, s.auditor, "--repo", s.repo)
			wantExit(t, r, 0)
			if report.Outcome != "explained" || report.Proof != "audit-hash" || len(report.Signatures) != 4 || len(report.Unexplained) != 0 {
				t.Fatalf("%s", r.stdout)
			}
			var versions []int
			for _, sig := range report.Signatures {
				e := sig.Event
				if sig.Status != auditlog.Proven || e == nil {
					t.Fatalf("not proven: %+v", sig)
				}
				versions = append(versions, e.KeyVersion)
				if e.Key != "transit/models" || e.DisplayName != "token-ci" || e.Role != "role-ci" || e.Metadata["repository"] != "org/repo" ||
					e.Metadata["actor"] != "somebody" || e.TokenTTL != 600 || e.TokenType != "service" || e.RemoteAddress != "127.0.0.1" || e.TokenIssued == "" {
					t.Errorf("event %+v", e)
				}
				if sig.RequestID != "" && sig.RequestID != e.RequestID {
					t.Errorf("the hint says %s, the log %s", sig.RequestID, e.RequestID)
				}
				if slices.Sort(sig.Tags); !slices.Equal(sig.Tags, []string{"stable", "v1"}) {
					t.Errorf("tags %v", sig.Tags)
				}
			}
			slices.Sort(versions)
			if !slices.Equal(versions, []int{1, 1, 2, 3}) {
				t.Errorf("versions %v", versions)
			}
			text := runCLI(t, s.auditor, "", "vault", "audit", "--log", s.AuditLog, "--repo", s.repo)
			wantExit(t, text, 0, "  proven  ", "by         token-ci, role role-ci", "repository=org/repo", "service, lives 10m0s", "hashivault://transit/models version 3")
		})
	}
}

func TestVaultAuditListsWhatNothingExplains(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	_, answer := s.Do(t, "PUT", "transit/sign/models", s.signing["VAULT_TOKEN"],
		map[string]any{"batch_input": []map[string]any{{"input": "YQ=="}, {"input": "Yg=="}}})
	request := answer["request_id"].(string)
	// Refused and empty requests make no signature, and need no explanation.
	s.Do(t, "PUT", "transit/sign/models", s.auditor["VAULT_TOKEN"], map[string]any{"input": "YQ=="})
	s.Do(t, "PUT", "transit/sign/models", s.signing["VAULT_TOKEN"], map[string]any{"batch_input": []any{}})

	r, report := s.audit(t, s.auditor, "--repo", s.repo)
	wantExit(t, r, 3, "0 signatures without a request in the log, 2 signatures of the log")
	if len(report.Unexplained) != 2 || report.Unexplained[0].RequestID != request || report.Unexplained[1].RequestID != request ||
		report.Signatures[0].Status != auditlog.Proven || report.Outcome != "unexplained" {
		t.Fatalf("%s", r.stdout)
	}
	// Of no interest to whoever asks about another key.
	s.TransitKey(t, "other", "ecdsa-p256")
	r, _ = s.audit(t, s.auditor, "--repo", s.repo, "--key", "hashivault://other")
	wantExit(t, r, 0)
	r, _ = s.audit(t, s.auditor, "--repo", s.repo, "--key", "hashivault://models?namespace=team")
	wantExit(t, r, 0)
}

// TestVaultAuditIsNotFooledByACopiedHint attaches a signature by a key that Vault
// does not have, with the hints of one that Vault made.
func TestVaultAuditIsNotFooledByACopiedHint(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	made := s.pushed.Signatures[0]
	s.signWith(t, copied{testkey.New(t, signature.ECDSAP256), made.VaultRequestID}, "v1")

	r, report := s.audit(t, s.auditor, "--repo", s.repo+"@"+string(s.pushed.Digest))
	wantExit(t, r, 3, "1 signature without a request in the log, 0 signatures of the log")
	for _, sig := range report.Signatures {
		want := auditlog.Unexplained
		if sig.Digest == made.Digest.String() {
			want = auditlog.Proven
		}
		if sig.Status != want || sig.RequestID != made.VaultRequestID {
			t.Errorf("%+v, want %s", sig, want)
		}
	}

	// Without the hash both look alike, and neither is called proven.
	for name, env := range map[string]map[string]string{"may not hash": s.signing, "no Vault": nil} {
		r, report = s.audit(t, env, "--repo", s.repo)
		wantExit(t, r, 4, "hints only", "nothing is proven")
		if len(report.Signatures) != 2 || report.Signatures[0].Status != auditlog.Hinted || report.Signatures[1].Status != auditlog.Hinted || report.Proof != "none" {
			t.Errorf("%s: %s", name, r.stdout)
		}
	}
	wantExit(t, runCLI(t, s.signing, "", "vault", "audit", "--log", s.AuditLog, "--repo", s.repo), 4, "by hint, unproven")
}

type copied struct {
	*testkey.Key
	request string
}

func (c copied) Sign(ctx context.Context, msgs []signature.Message) ([]signature.Primitive, error) {
	prims, err := c.Key.Sign(ctx, msgs)
	for i := range prims {
		prims[i].KeyVersion, prims[i].RequestID = 1, c.request
	}
	return prims, err
}

func TestVaultAuditReadsRotatedLogsInAnyOrder(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	s.signWith(t, signer{t, s, 0}, "v1")
	content, err := os.ReadFile(s.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	all := bytes.SplitAfter(content, []byte("\n"))
	dir := t.TempDir()
	var names []string
	for i := 0; i < len(all); i += 3 { // splits requests from their answers
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write(bytes.Join(all[i:min(i+3, len(all))], nil)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, "audit.log."+string(rune('a'+i/3))+".gz")
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	slices.Reverse(names)
	args := append([]string{"vault", "audit", "--repo", s.repo, "--log"}, names...)
	wantExit(t, runCLI(t, s.auditor, "", args...), 0)
	wantExit(t, runCLI(t, s.auditor, string(content), "vault", "audit", "--repo", s.repo, "--log", "-"), 0)

	// Without one of them something is open.
	for i := range names {
		if r := runCLI(t, s.auditor, "", append([]string{"vault", "audit", "--repo", s.repo, "--log"}, slices.Delete(slices.Clone(names), i, i+1)...)...); r.exit == 3 {
			return
		}
	}
	t.Error("every part of the log can be left out")
}

// TestVaultAuditKnowsAnotherSalt enables the device anew: what is new has another
// salt, and what is old must not look unexplained.
func TestVaultAuditKnowsAnotherSalt(t *testing.T) {
	t.Parallel()
	s := newAudited(t)
	s.Delete(t, "sys/audit/file")
	s.Write(t, "sys/audit/file", map[string]any{"type": "file", "options": map[string]any{"file_path": s.AuditLog}})
	r, report := s.audit(t, s.auditor, "--repo", s.repo)
	wantExit(t, r, 4, "hashed under another salt")
	if report.Log.Foreign != 1 || report.Signatures[0].Status != auditlog.Hinted {
		t.Fatalf("%s", r.stdout)
	}
	wantExit(t, runCLI(t, s.auditor, "", "vault", "audit", "--log", s.AuditLog, "--audit-device", "other"), 4, "sys/audit-hash/other")
	wantExit(t, runCLI(t, s.env(s.RootToken), "", "vault", "audit", "--log", s.AuditLog, "--audit-device", "other"), 4, "--audit-device NAME")
}

func TestVaultAuditRefusesWhatIsNoLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, content := range map[string]string{"text": "hello\n", "json": `{"a":1}` + "\n", "jsonx": "<json:object>\n", "cut.gz": "\x1f\x8b\x08\x00\x00"} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := runCLI(t, nil, "", "vault", "audit", "--format", "json", "--log", file)
		wantExit(t, r, 4, "audit_log_unreadable", file)
	}
	wantExit(t, runCLI(t, nil, "", "vault", "audit", "--log", filepath.Join(dir, "none")), 2, "no such file")
	wantExit(t, runCLI(t, nil, "", "vault", "audit"), 2, "needs a log")
	wantExit(t, runCLI(t, nil, "", "vault", "audit", "--log", "-", "--key", "key.pem"), 2, "Transit keys only")
	wantExit(t, runCLI(t, nil, "", "vault", "audit", "--log", "-", "-"), 2, "once only")
}
