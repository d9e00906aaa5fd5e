// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build acceptance

package kubernetes

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// modelBlobs notes when the model's own blobs were asked for; those of signatures
// are read before.
type modelBlobs struct {
	digests []string
	mu      sync.Mutex
	first   time.Time
}

func (b *modelBlobs) holds(path string) bool {
	for _, d := range b.digests {
		if strings.HasSuffix(path, "/blobs/"+d) {
			return true
		}
	}
	return false
}

func (b *modelBlobs) note(_ http.ResponseWriter, q *http.Request) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q.Method == http.MethodGet && b.first.IsZero() && b.holds(q.URL.Path) {
		b.first = time.Now()
	}
	return false
}

func (b *modelBlobs) asked() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.first
}

// before counts the requests up to the first blob of the model.
func (b *modelBlobs) before(requests []servertest.Request) int {
	for i, q := range requests {
		if q.Method == http.MethodGet && b.holds(q.Path) {
			return i
		}
	}
	return len(requests)
}

// audited is one answer in Vault's audit log.
type audited struct {
	path string
	at   time.Time
	auth map[string]any // of the caller, or of the login's answer
	ok   bool
}

// answers reads the audit log's answers on paths of this kind.
func answers(t *testing.T, vault *servertest.Server, path string) []audited {
	t.Helper()
	var all []audited
	for _, e := range vault.AuditEntries(t) {
		request, _ := e["request"].(map[string]any)
		if e["type"] != "response" || request["path"] != path {
			continue
		}
		at, err := time.Parse(time.RFC3339Nano, e["time"].(string))
		if err != nil {
			t.Fatal(err)
		}
		a := audited{path: path, at: at, ok: e["error"] == nil}
		a.auth, _ = e["auth"].(map[string]any)
		if response, _ := e["response"].(map[string]any); response["auth"] != nil {
			a.auth, _ = response["auth"].(map[string]any)
		}
		all = append(all, a)
	}
	return all
}

// podTTL holds a pod's token, as the audit log shows it, to what the role says.
func podTTL(t *testing.T, a audited) time.Duration {
	t.Helper()
	seconds, _ := a.auth["token_ttl"].(float64)
	ttl := time.Duration(seconds) * time.Second
	if ttl <= 0 || ttl > time.Hour {
		t.Errorf("%s: the token lives %s: %v", a.path, ttl, a.auth)
	}
	metadata, _ := a.auth["metadata"].(map[string]any)
	if metadata["service_account_name"] != "aegis-app" || metadata["role"] != roleName {
		t.Errorf("%s: the audit log says %v", a.path, metadata)
	}
	return ttl
}
