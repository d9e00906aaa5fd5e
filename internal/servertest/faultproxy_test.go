// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// healthPath is a call that a real core answers with JSON and without a token.
const healthPath = "/v1/sys/health"

// faulty returns a proxy before the shared core and a client that never reuses a
// connection, so that each request stands alone.
func faulty(t *testing.T) (*servertest.Proxy, *http.Client) {
	t.Helper()
	p := servertest.FaultProxy(t, servertest.SharedStack(t).VaultAddr)
	return p, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
}

func TestFaultProxyPassesRequestsThrough(t *testing.T) {
	s := servertest.SharedStack(t)
	p := servertest.FaultProxy(t, s.Registry)
	pushArtifact(t, http.DefaultClient, p.URL, "through/proxy", nil)
	uploads := p.Count("/blobs/uploads/")
	if uploads != 2 {
		t.Errorf("%d upload requests went through the proxy, want 2", uploads)
	}
	if got := p.Requests()[0]; got.Method != http.MethodPost || got.Path != "/v2/through/proxy/blobs/uploads/" {
		t.Errorf("the first request is %s %s", got.Method, got.Path)
	}
	p.Reset()
	if n := p.Count(""); n != 0 {
		t.Errorf("%d requests after Reset", n)
	}
}

func TestFaultProxyAnswersAStatusForTheNextRequests(t *testing.T) {
	p, client := faulty(t)
	p.Fail(servertest.Fault{
		Path: "sys/health", Skip: 1, Times: 2,
		Status: http.StatusTooManyRequests, Body: `{"errors":["slow down"]}`, Header: http.Header{"Retry-After": {"7"}},
	})
	if got := get(t, client, p.URL+"/v1/sys/seal-status").StatusCode; got != http.StatusOK {
		t.Errorf("another path: %d", got)
	}
	for i, want := range []int{200, 429, 429, 200} {
		resp := get(t, client, p.URL+healthPath)
		if resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i, resp.StatusCode, want)
		}
		if want != 429 {
			continue
		}
		if body, _ := io.ReadAll(resp.Body); resp.Header.Get("Retry-After") != "7" || string(body) != `{"errors":["slow down"]}` {
			t.Errorf("request %d: Retry-After %q, body %q", i, resp.Header.Get("Retry-After"), body)
		}
	}
	if n := p.Count("sys/health"); n != 4 {
		t.Errorf("counted %d requests, want 4", n)
	}
}

func TestFaultProxyMatchesTheMethod(t *testing.T) {
	p, client := faulty(t)
	p.Fail(servertest.Fault{Method: http.MethodHead, Status: http.StatusBadGateway})
	if got := do(t, client, http.MethodHead, p.URL+healthPath, "", nil).StatusCode; got != http.StatusBadGateway {
		t.Errorf("HEAD: %d", got)
	}
	if got := get(t, client, p.URL+healthPath).StatusCode; got != http.StatusOK {
		t.Errorf("GET: %d", got)
	}
}

func TestFaultProxyDelays(t *testing.T) {
	p, client := faulty(t)
	p.Fail(servertest.Fault{Times: 1, Delay: 300 * time.Millisecond})
	began := time.Now()
	if got := get(t, client, p.URL+healthPath).StatusCode; got != http.StatusOK {
		t.Errorf("status %d", got)
	}
	if took := time.Since(began); took < 300*time.Millisecond {
		t.Errorf("took only %s", took)
	}
}

func TestFaultProxyCutsTheBody(t *testing.T) {
	p, client := faulty(t)
	p.Fail(servertest.Fault{Times: 1, Cut: true, CutAfter: 10})
	resp := get(t, client, p.URL+healthPath)
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || len(body) != 10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("status %d, %d bytes, error %v; want 200, 10 and an unexpected EOF", resp.StatusCode, len(body), err)
	}
}

func TestFaultProxyCutsBeforeTheAnswerThoughTheServerHasActed(t *testing.T) {
	s := servertest.SharedStack(t)
	p, client := faulty(t)
	p.Fail(servertest.Fault{Path: "transit/keys", Times: 1, Cut: true})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/v1/transit/keys/made-anyway", strings.NewReader(`{"type":"ed25519"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", s.RootToken)
	resp, err := client.Do(req)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("an answer came through: %s", resp.Status)
	}
	s.Read(t, "transit/keys/made-anyway")
}

func TestFaultProxyChangesTheAnswer(t *testing.T) {
	p, client := faulty(t)
	p.Fail(servertest.Fault{
		Times:  1,
		Header: http.Header{"Content-Type": {"text/html"}, "Cache-Control": nil},
		Replace: func(body []byte) []byte {
			return bytes.Replace(body, []byte(`"sealed":false`), []byte(`"sealed":true`), 1)
		},
	})
	resp := get(t, client, p.URL+healthPath)
	body, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Contains(body, []byte(`"sealed":true`)) || resp.ContentLength != int64(len(body)) {
		t.Errorf("body %q, error %v, length %d", body, err, resp.ContentLength)
	}
	if resp.Header.Get("Content-Type") != "text/html" || resp.Header.Get("Cache-Control") != "" {
		t.Errorf("headers %v", resp.Header)
	}
}

func TestFaultProxyGoesDownAndUpOnTheSamePort(t *testing.T) {
	p, client := faulty(t)
	p.Down()
	resp, err := client.Get(p.URL + healthPath)
	if err == nil {
		_ = resp.Body.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("down: %v, want connection refused", err)
	}
	p.Up(t)
	if got := get(t, client, p.URL+healthPath).StatusCode; got != http.StatusOK {
		t.Errorf("up again: %d", got)
	}
}

func TestFaultProxyInterceptAnswersFirst(t *testing.T) {
	p, client := faulty(t)
	p.Fail(servertest.Fault{Status: http.StatusBadGateway})
	p.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != healthPath {
			return false
		}
		http.Redirect(w, r, "/v1/sys/seal-status", http.StatusTemporaryRedirect)
		return true
	})
	if got := get(t, client, p.URL+healthPath).StatusCode; got != http.StatusBadGateway {
		t.Errorf("after the redirect: %d, want the fault's 502", got)
	}
	p.Reset()
	if got := get(t, client, p.URL+healthPath).StatusCode; got != http.StatusOK {
		t.Errorf("after Reset: %d", got)
	}
}
