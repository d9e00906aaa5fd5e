// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// faulty is a session through a proxy whose faults begin after it has opened.
func faulty(t *testing.T, mods ...func(*Config)) (*servertest.Server, *servertest.Proxy, *Session, *world, *Signer) {
	t.Helper()
	srv := servertest.SharedStack(t)
	key := name(t)
	srv.TransitKey(t, key, "ecdsa-p256")
	proxy := servertest.FaultProxy(t, srv.VaultAddr)
	s, w := open(t, proxy.URL, srv.RootToken, mods...)
	g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: key})
	if err != nil {
		t.Fatal(err)
	}
	return srv, proxy, s, w, g
}

func TestRequestsAreRepeatedWithinTheBudget(t *testing.T) {
	_, proxy, _, w, g := faulty(t)
	for _, f := range []servertest.Fault{
		{Status: 412}, {Status: 429}, {Status: 472}, {Status: 473}, {Status: 500}, {Status: 502}, {Status: 503, Body: `{"errors":["Vault is sealed"]}`},
		{Cut: true}, {Cut: true, CutAfter: 40},
	} {
		proxy.Reset()
		f.Path, f.Times = "transit/sign/", 3
		proxy.Fail(f)
		w.clock.waits = nil
		if _, err := g.Sign(t.Context(), messages("m")); err != nil {
			t.Errorf("%+v: %v", f, err)
		}
		if len(w.clock.waits) != 3 || proxy.Count("transit/sign/") != 4 {
			t.Errorf("%+v: %d waits, %d requests", f, len(w.clock.waits), proxy.Count("transit/sign/"))
		}
	}
}

func TestAnOutageHasAKindWhenTheBudgetIsSpent(t *testing.T) {
	_, proxy, _, w, g := faulty(t, func(c *Config) { c.RetryBudget = time.Minute })
	for _, tc := range []struct {
		fault servertest.Fault
		kind  Kind
	}{
		{servertest.Fault{Status: 412}, Unavailable},
		{servertest.Fault{Status: 429, Body: `{"errors":["request path \"transit/sign/x\": rate limit quota exceeded"]}`}, RateLimited},
		{servertest.Fault{Status: 472}, Standby},
		{servertest.Fault{Status: 473}, Standby},
		{servertest.Fault{Status: 500, Body: "internal"}, Unavailable},
		{servertest.Fault{Status: 500, Body: `{"errors":["local node not active but active cluster node not found"]}`}, Standby},
		{servertest.Fault{Status: 503, Body: `{"errors":["Vault is sealed"]}`}, Sealed},
		{servertest.Fault{Status: 503, Body: `{"errors":["Vault is in standby mode"]}`}, Standby},
		{servertest.Fault{Cut: true}, Unreachable},
		{servertest.Fault{Cut: true, CutAfter: 30}, Unreachable},
	} {
		proxy.Reset()
		tc.fault.Path = "transit/sign/"
		proxy.Fail(tc.fault)
		start := w.clock.Now()
		_, err := g.Sign(t.Context(), messages("m"))
		if e := wantKind(t, err, tc.kind); !e.Retryable() {
			t.Errorf("%+v: not retryable: %v", tc.fault, err)
		}
		if spent := w.clock.Now().Sub(start); spent < 30*time.Second || spent > time.Minute {
			t.Errorf("%+v: %v of a minute spent", tc.fault, spent)
		}
	}
}

func TestFinalAnswersAreNotRepeated(t *testing.T) {
	_, proxy, _, w, g := faulty(t)
	for _, tc := range []struct {
		fault servertest.Fault
		kind  Kind
	}{
		{servertest.Fault{Status: 400, Body: `{"errors":["no"]}`}, BadRequest},
		{servertest.Fault{Status: 403, Body: `{"errors":["1 error occurred:\n\t* permission denied\n\n"]}`}, Denied},
		{servertest.Fault{Status: 403, Body: `{"errors":["2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"]}`}, TokenInvalid},
		{servertest.Fault{Status: 403, Body: `{"errors":["permission denied"]}`}, Denied}, // lookup-self knows the token
		{servertest.Fault{Status: 404, Body: `{"errors":[]}`}, KeyNotFound},
		{servertest.Fault{Status: 405, Body: `{"errors":["1 error occurred:\n\t* unsupported operation\n\n"]}`}, BadRequest},
		{servertest.Fault{Status: 200, Body: "<html>"}, Malformed},
		{servertest.Fault{Status: 200, Body: strings.Repeat(" ", maxAnswer+1)}, Malformed},
		{servertest.Fault{Status: 400, Body: strings.Repeat(" ", maxAnswer+1)}, Malformed},
	} {
		proxy.Reset()
		w.clock.waits = nil
		tc.fault.Path = "transit/sign/"
		proxy.Fail(tc.fault)
		_, err := g.Sign(t.Context(), messages("m"))
		e := wantKind(t, err, tc.kind)
		if proxy.Count("transit/sign/") != 1 || len(w.clock.waits) != 0 {
			t.Errorf("%v: %d requests", e, proxy.Count("transit/sign/"))
		}
		if tc.kind == Denied && (e.Path != g.ref.path("sign") || e.Capability != "update" || !strings.Contains(e.Error(), e.Path)) {
			t.Errorf("%+v", e)
		}
	}
}

func TestRetryAfterIsHonouredUpToTheBudget(t *testing.T) {
	_, proxy, _, w, g := faulty(t, func(c *Config) { c.RetryBudget = time.Minute })
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 429, Times: 1, Header: http.Header{"Retry-After": {"45"}}})
	if _, err := g.Sign(t.Context(), messages("m")); err != nil || len(w.clock.waits) != 1 || w.clock.waits[0] <= 45*time.Second || w.clock.waits[0] > 49500*time.Millisecond {
		t.Errorf("waited %v: %v", w.clock.waits, err)
	}
	w.clock.waits = nil
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 429, Header: http.Header{"Retry-After": {"61"}}})
	_, err := g.Sign(t.Context(), messages("m"))
	wantKind(t, err, RateLimited)
	if len(w.clock.waits) != 0 {
		t.Errorf("waited %v for what could not come in time", w.clock.waits)
	}
}

func TestACancelledCommandStopsWaiting(t *testing.T) {
	_, proxy, _, _, g := faulty(t, func(c *Config) { c.Sleep, c.Now = nil, nil })
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 503})
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(50*time.Millisecond, func() { cancel(context.Canceled) })
	start := time.Now()
	_, err := g.Sign(ctx, messages("m"))
	if !errors.Is(err, context.Canceled) || time.Since(start) > 20*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
}

func TestUnreachable(t *testing.T) {
	_, proxy, _, w, g := faulty(t)
	proxy.Down()
	_, err := g.Sign(t.Context(), messages("m"))
	if e := wantKind(t, err, Unreachable); len(w.clock.waits) < 5 || !strings.Contains(e.Error(), proxy.Addr) {
		t.Errorf("%d waits: %v", len(w.clock.waits), err)
	}
}

// What comes back must be signatures by one version, in the order asked.
func TestSignerDisbelievesAMalformedAnswer(t *testing.T) {
	srv, proxy, _, _, g := faulty(t)
	good := formatSignature(sign(t, srv, g.ref.Name, 1, "m")[0].Signature, 1)
	for _, results := range []string{
		`{"signature":"vault:v1:"}`, `{"signature":"vault:v1"}`, `{"signature":""}`, `{}`, `{"signature":"vault:v1:AAAA","key_version":1}`,
		fmt.Sprintf(`{"signature":%q,"key_version":2}`, good),
		fmt.Sprintf(`{"signature":%q}`, strings.Replace(good, "v1", "v2", 1)), // version 1 was pinned
		fmt.Sprintf(`{"signature":%q,"reference":"1"}`, good),
		fmt.Sprintf(`{"signature":%q},{"signature":%q}`, good, good),
		``,
	} {
		proxy.Reset()
		proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 200, Body: `{"data":{"batch_results":[` + results + `]}}`})
		prims, err := g.Sign(t.Context(), messages("m"))
		wantKind(t, err, Malformed)
		if prims != nil {
			t.Errorf("%s: %+v", results, prims)
		}
	}
	proxy.Reset()
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 200, Body: fmt.Sprintf(`{"data":{"batch_results":[{"signature":%q},{"error":"internal"}]}}`, good)})
	if prims, err := g.Sign(t.Context(), messages("m", "n")); err == nil || prims != nil {
		t.Errorf("half a batch: %+v", prims)
	}
}

// A hostile server may send the token back; it must not reach a log.
func TestErrorsHoldNoToken(t *testing.T) {
	srv, proxy, s, w, g := faulty(t, func(c *Config) { c.RetryBudget = 5 * time.Second })
	own := sign(t, srv, g.ref.Name, 1, "m")
	for _, f := range []servertest.Fault{
		{Status: 400, Body: `{"errors":["your token is ` + srv.RootToken + `"]}`},
		{Status: 500, Body: "X-Vault-Token: " + srv.RootToken},
		{Status: 307, Header: http.Header{"Location": {"https://" + srv.RootToken + "@evil.example/v1/x?t=" + srv.RootToken}}},
		{Status: 200, Body: `{"data":{"batch_results":[{"error":"` + srv.RootToken + `"}]}}`},
		{Status: 200, Body: `{"request_id":"` + srv.RootToken + `","data":{"batch_results":[]}}`},
	} {
		proxy.Reset()
		f.Path = "transit/"
		proxy.Fail(f)
		_, err := g.Sign(t.Context(), messages("m"))
		if err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), srv.RootToken) {
			t.Errorf("%+v: %#v", f, err)
		}
		v := s.Key(g.ref).Check(t.Context(), own)[0]
		if v.Err == nil || strings.Contains(fmt.Sprintf("%v %+v %#v", v.Err, v.Err, v.Err), srv.RootToken) {
			t.Errorf("%+v: %#v", f, v.Err)
		}
	}
	if !strings.Contains(w.log.String(), "vault request repeated") || strings.Contains(w.log.String(), srv.RootToken) {
		t.Errorf("log: %s", w.log.String())
	}
}

// A redirect to another server would take the token there.
func TestRedirectsStayOnTheServer(t *testing.T) {
	srv, proxy, _, _, g := faulty(t)
	other := servertest.FaultProxy(t, srv.VaultAddr)
	for _, status := range []int{301, 302, 307, 308} {
		proxy.Reset()
		proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: status, Header: http.Header{"Location": {other.URL + "/v1/transit/sign/" + g.ref.Name}}})
		_, err := g.Sign(t.Context(), messages("m"))
		if e := wantKind(t, err, Standby); !strings.Contains(e.Error(), other.Addr) || proxy.Count("transit/sign/") != 1 {
			t.Errorf("%v", err)
		}
	}
	if n := other.Count(""); n != 0 {
		t.Errorf("%d requests followed", n)
	}
	proxy.Reset()
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 307, Times: 1, Header: http.Header{"Location": {"/v1/transit/sign/" + g.ref.Name}}})
	if _, err := g.Sign(t.Context(), messages("m")); err != nil {
		t.Errorf("on the same server: %v", err)
	}
	proxy.Reset()
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 307, Header: http.Header{"Location": {"/v1/transit/sign/" + g.ref.Name}}})
	_, err := g.Sign(t.Context(), messages("m"))
	wantKind(t, err, Malformed)
	if n := proxy.Count("transit/sign/"); n != 2 {
		t.Errorf("%d requests in a circle", n)
	}
}

func TestASealedServerIsAwaited(t *testing.T) {
	srv := servertest.Stack(t, "-no-registry")
	srv.TransitKey(t, "k", "ecdsa-p256")
	s, w := open(t, srv.VaultAddr, srv.RootToken)
	g, err := s.Signer(t.Context(), KeyRef{Mount: "transit", Name: "k"})
	if err != nil {
		t.Fatal(err)
	}
	own := sign(t, srv, "k", 1, "m")
	srv.Seal(t)
	_, err = g.Sign(t.Context(), messages("m"))
	wantKind(t, err, Sealed, srv.RootToken)
	wantKind(t, s.Key(g.ref).Check(t.Context(), own)[0].Err, Sealed)
	s.client.cfg.Sleep = func(d time.Duration, _ <-chan struct{}) {
		if len(w.clock.waits) > 0 {
			w.clock.waits = nil
			srv.Unseal(t)
		}
	}
	w.clock.waits = []time.Duration{1}
	if _, err := g.Sign(t.Context(), messages("m")); err != nil {
		t.Errorf("after it was unsealed: %v", err)
	}
	_, err = Open(t.Context(), (&world{}).config("http://127.0.0.1:1"), StaticToken("s.x", "flag"))
	wantKind(t, err, Unreachable)
}

func TestAnUninitializedServerIsNamed(t *testing.T) {
	_, proxy, _, _, g := faulty(t)
	proxy.Fail(servertest.Fault{Path: "transit/sign/", Status: 503, Body: `{"errors":["Vault is sealed"]}`})
	proxy.Fail(servertest.Fault{Path: "sys/seal-status", Status: 200, Body: `{"initialized":false,"sealed":true}`})
	_, err := g.Sign(t.Context(), messages("m"))
	wantKind(t, err, Uninitialized)
}
