// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vectors_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
	"github.com/aegis-oci/aegis-oci/pkg/trustpolicy"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// count is the number of vectors. They are added and never taken away.
const count = 166

// TestVectors has the library judge every vector, at the first and at the last
// moment for which they are made.
func TestVectors(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t)
	all := vectors.Load(t, dir)
	if len(all) != count {
		t.Errorf("%d vectors, want %d", len(all), count)
	}
	for _, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			for _, now := range []time.Time{time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC), time.Date(2098, 12, 1, 0, 0, 0, 0, time.UTC)} {
				verified, err := judge(t, dir, v, now)
				class, rule := classOf(t, err)
				if class != v.Expect || rule != v.Rule {
					t.Fatalf("%s %s, want %s %s: %v", class, rule, v.Expect, v.Rule, err)
				}
				if err != nil && (v.Reason == "" || !strings.Contains(err.Error(), v.Reason)) {
					t.Errorf("the reason is not %q: %v", v.Reason, err)
				}
				if (err == nil) != (verified.Subject().Digest() == v.SubjectOf(t).Digest() && len(verified.Accepted()) > 0) {
					t.Errorf("evidence %+v with %v", verified, err)
				}
			}
		})
	}
}

func judge(t testing.TB, dir string, v vectors.Vector, now time.Time) (verify.Verified, error) {
	t.Helper()
	policy, err := trustpolicy.Parse(v.Policy)
	if err != nil {
		t.Fatal(err)
	}
	st, err := policy.Match(v.Repository)
	if err != nil {
		t.Fatal(err)
	}
	req, err := aegis.RequirementOf(t.Context(), st, v.Repository, files(dir))
	if err != nil {
		t.Fatal(err)
	}
	return verify.New(verify.Options{Now: func() time.Time { return now }}).Verify(t.Context(), v.SubjectOf(t), v.Source(t), req)
}

// files opens the keys of a policy below a directory.
type files string

func (f files) ReadFile(path string) ([]byte, error) {
	return os.ReadFile(filepath.Join(string(f), path))
}

func (files) Transit(context.Context, trustpolicy.Key, bool) (signature.Key, error) {
	return nil, errors.New("no vector has a Transit key")
}

func (files) Revocation() aegis.RevocationChecker { return nil }

func (files) Warn(string) {}

func (files) TrustStore(string) ([]byte, error) {
	return nil, errors.New("no vector has a trust store")
}

// classOf is the class of a refusal, for which every candidate has to agree.
func classOf(t *testing.T, err error) (class, rule string) {
	t.Helper()
	if err == nil {
		return "success", ""
	}
	var none *verify.NoSignatureError
	if errors.As(err, &none) {
		return "unsigned", ""
	}
	var rejected *verify.RejectedError
	if !errors.As(err, &rejected) {
		t.Fatalf("no judgement: %v", err)
	}
	for i, r := range rejected.Reasons {
		var few *verify.SignersError
		c, by := one(t, r.Err)
		if errors.As(r.Err, &few) {
			return c, by // the others are why it is not more
		}
		if i > 0 && (c != class || by != rule) {
			t.Fatalf("both %s and %s: %v", class, c, err)
		}
		class, rule = c, by
	}
	return class, rule
}

func one(t *testing.T, err error) (class, rule string) {
	t.Helper()
	var (
		byRule    verify.RuleError
		statement *signature.StatementError
		candidate *verify.CandidateError
		bundle    *sigstore.ParseError
		envelope  *notary.ParseError
		classic   *simplesigning.ParseError
	)
	switch {
	case errors.As(err, &statement):
		return "statement", ""
	case errors.Is(err, signature.ErrInvalid):
		return "signature", ""
	case errors.As(err, &candidate), errors.As(err, &bundle), errors.As(err, &envelope), errors.As(err, &classic):
		return "format", ""
	case !errors.As(err, &byRule):
		t.Fatalf("of no class: %v", err)
	}
	switch r := byRule.Rule(); r {
	case verify.RuleSubject:
		return "subject", ""
	case verify.RuleExpiry:
		return "expired", ""
	case verify.RuleClock:
		return "clock", ""
	case verify.RuleCertificate:
		return "certificate", ""
	default:
		return "policy", r
	}
}

// TestGeneratorWritesTheVectors holds the files against the program that made
// them, so that nobody edits one by hand.
func TestGeneratorWritesTheVectors(t *testing.T) {
	t.Parallel()
	dir, made := vectors.Dir(t), t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", "run", "./testdata/gen", "-o", made)
	cmd.Dir = filepath.Join(dir, "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, pattern := range []string{"*.json", filepath.Join("keys", "*.pem")} {
		kept, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(kept) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		fresh, err := filepath.Glob(filepath.Join(made, pattern))
		if err != nil || len(fresh) != len(kept) {
			t.Errorf("%s: %d are made and %d are kept (%v)", pattern, len(fresh), len(kept), err)
		}
		for _, path := range kept {
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				t.Fatal(err)
			}
			same(t, path, filepath.Join(made, rel))
		}
	}
}

func same(t *testing.T, a, b string) {
	t.Helper()
	x, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := os.ReadFile(b)
	if err != nil {
		t.Error(err)
	} else if !bytes.Equal(x, y) {
		t.Errorf("%s is not what the generator writes", a)
	}
}

// TestReadmeNamesVectors holds the README's table: every name and pattern in it
// is that of a vector.
func TestReadmeNamesVectors(t *testing.T) {
	t.Parallel()
	dir := vectors.Dir(t)
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(readme), "| attempt | held by |")
	if !found {
		t.Fatal("the README has no table of attempts")
	}
	seen := 0
	for i, pattern := range strings.Split(table, "`") {
		if i%2 == 0 || strings.HasPrefix(pattern, "Test") || strings.ContainsAny(pattern, "/.") {
			continue
		}
		seen++
		if found, err := filepath.Glob(filepath.Join(dir, pattern+".json")); err != nil || len(found) == 0 {
			t.Errorf("no vector is called %s (%v)", pattern, err)
		}
	}
	if seen < 40 {
		t.Errorf("only %d names", seen)
	}
}
