// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// clock is time that passes only in Sleep, so that a budget of minutes is spent
// at once and to the millisecond.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	waits []time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Sleep(d time.Duration, _ <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.waits = append(c.waits, d)
}

// world is a session's surroundings: what it logs and warns, and its clock.
type world struct {
	clock clock
	log   bytes.Buffer
	warns []string
}

func (w *world) config(addr string) Config {
	w.clock.now = time.Now()
	return Config{
		Address: addr, Now: w.clock.Now, Sleep: w.clock.Sleep, UserAgent: "aegis-oci/test",
		Logger: slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Warn:   func(s string) { w.warns = append(w.warns, s) },
	}
}

// open opens a session with a given token. At the end the token must not be in
// anything that was logged or warned of.
func open(t *testing.T, addr, token string, mods ...func(*Config)) (*Session, *world) {
	t.Helper()
	w := &world{}
	cfg := w.config(addr)
	for _, m := range mods {
		m(&cfg)
	}
	s, err := Open(t.Context(), cfg, StaticToken(token, "VAULT_TOKEN"))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		s.Close(context.Background())
		if seen := w.log.String() + strings.Join(w.warns, "\n"); strings.Contains(seen, token) {
			t.Errorf("the token is in the log: %s", seen)
		}
	})
	return s, w
}

// wantKind asserts the kind of err, that it is an *Error, and that no secret is
// in any way it prints.
func wantKind(t *testing.T, err error, kind Kind, secrets ...string) *Error {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want an *Error of kind %q", err, err, kind)
	}
	if e.Kind != kind {
		t.Fatalf("error of kind %q, want %q: %v", e.Kind, kind, err)
	}
	for _, s := range secrets {
		if printed := fmt.Sprintf("%v %+v %#v", err, e, e); s != "" && strings.Contains(printed, s) {
			t.Errorf("a secret is in the error: %s", printed)
		}
	}
	return e
}

// name makes the name of a key that no other test has.
func name(t *testing.T) string {
	return strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
}

// limited makes a token that may do nothing but what the rules say, and has not
// even the default policy. rules are pairs of path and capability.
func limited(t *testing.T, srv *servertest.Server, rules ...string) string {
	t.Helper()
	var hcl strings.Builder
	for i := 0; i < len(rules); i += 2 {
		fmt.Fprintf(&hcl, "path %q { capabilities = [%q] }\n", rules[i], rules[i+1])
	}
	policy := name(t) + fmt.Sprintf("-%d", len(rules)) + strings.ToLower(strings.NewReplacer("/", "-", "*", "all").Replace(rules[0]))
	srv.Policy(t, policy, hcl.String())
	return srv.Token(t, map[string]any{"policies": []string{policy}, "no_default_policy": true, "ttl": "10m"})
}

func messages(texts ...string) []signature.Message {
	var msgs []signature.Message
	for _, s := range texts {
		msgs = append(msgs, signature.Message{Format: signature.Sigstore, Bytes: []byte(s)})
	}
	return msgs
}

// sign signs each text with version (0 for the latest) of a key in transit/.
func sign(t *testing.T, srv *servertest.Server, key string, version int, texts ...string) []signature.Check {
	t.Helper()
	s, _ := open(t, srv.VaultAddr, srv.RootToken)
	g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: key, Version: version})
	if err != nil {
		t.Fatal(err)
	}
	prims, err := g.Sign(t.Context(), messages(texts...))
	if err != nil {
		t.Fatal(err)
	}
	checks := make([]signature.Check, len(prims))
	for i, p := range prims {
		checks[i] = signature.Check{Format: signature.Sigstore, Message: []byte(texts[i]), Signature: p.Signature, VersionHint: p.KeyVersion}
	}
	return checks
}

func unhinted(checks []signature.Check) []signature.Check {
	out := append([]signature.Check(nil), checks...)
	for i := range out {
		out[i].VersionHint = 0
	}
	return out
}
