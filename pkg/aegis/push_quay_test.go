// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// likeQuay answers for a registry as Quay does (endpoints/v2 of its source): what has no
// type of its own is text/html, /v2/ is "true", and the status of an upload counts one byte
// more than there is. It takes requests of at most size bytes; zero is no bound. Gitea's
// count is that too, in another form.
func likeQuay(t *testing.T, host string, size int64, form string) string {
	t.Helper()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	proxy.FlushInterval = -1
	proxy.ModifyResponse = func(resp *http.Response) error {
		resp.Header.Del("Docker-Distribution-Api-Version")
		if resp.Header.Get("Content-Type") == "" {
			resp.Header.Set("Content-Type", "text/html; charset=utf-8")
		}
		var last int64
		if _, err := fmt.Sscanf(resp.Header.Get("Range"), "0-%d", &last); err == nil && resp.Request.Method == http.MethodGet {
			resp.Header.Set("Range", fmt.Sprintf(form, last+1))
		}
		if resp.Request.URL.Path == "/v2/" && resp.StatusCode == http.StatusOK {
			resp.Header.Set("Content-Type", "text/html; charset=utf-8")
			resp.Body.Close()
			resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader("true")), 4
			resp.Header.Set("Content-Length", "4")
		}
		return nil
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if size > 0 && r.ContentLength > size {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// TestPushToARegistryLikeQuay: it is not taken for a web page, and an upload that breaks
// off goes on in its session.
func TestPushToARegistryLikeQuay(t *testing.T) {
	t.Parallel()
	const patch = http.MethodPatch
	host, _ := servertest.Distribution(t)
	const quay, gitea = "bytes=0-%d", "0-%d"
	for name, c := range map[string]struct {
		size   int64
		form   string
		faults []servertest.Fault
	}{
		"in one request":   {0, quay, nil},
		"cut":              {0, quay, []servertest.Fault{{Method: patch, CutBody: 8 << 20, Times: 1}}},
		"cut twice":        {0, quay, []servertest.Fault{{Method: patch, CutBody: 5 << 20, Times: 1}, {Method: patch, CutBody: 6 << 20, Times: 1}}},
		"answer lost":      {0, quay, []servertest.Fault{{Method: patch, Cut: true, Times: 1}}},
		"in pieces":        {5 << 20, quay, []servertest.Fault{{Method: patch, Skip: 5, CutBody: 1, Times: 1}}},
		"piece lost":       {5 << 20, quay, []servertest.Fault{{Method: patch, Skip: 5, Cut: true, Times: 1}}},
		"piece put off":    {5 << 20, quay, []servertest.Fault{{Method: patch, Skip: 5, Status: 503, Times: 2}}},
		"Gitea, put off":   {0, gitea, []servertest.Fault{{Method: patch, CutBody: 8 << 20, Times: 1}, {Method: patch, Status: 503, Times: 1}}},
		"Gitea":            {0, gitea, []servertest.Fault{{Method: patch, CutBody: 8 << 20, Times: 1}}},
		"Gitea, twice":     {0, gitea, []servertest.Fault{{Method: patch, CutBody: 5 << 20, Times: 1}, {Method: patch, CutBody: 6 << 20, Times: 1}}},
		"Gitea, in pieces": {5 << 20, gitea, []servertest.Fault{{Method: patch, Skip: 5, CutBody: 1, Times: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			sessions := func(tag string, faults []servertest.Fault) (n int) {
				t.Helper()
				proxy := servertest.FaultProxy(t, likeQuay(t, host, c.size, c.form))
				for _, f := range faults {
					proxy.Fail(f)
				}
				ref, dir := refTo(t, host, tag), largeModel(t, 7)
				ref.Repository += "-" + tag
				got := mustPush(t, newClient(t), via(proxy, ref), dir, nil)
				if (got.Retries > 0) != (len(faults) > 0) {
					t.Errorf("%d retries", got.Retries)
				}
				pulled(t, ref, dir)
				for _, r := range proxy.Requests() {
					if r.Method == http.MethodPost {
						n++
					}
				}
				return n
			}
			if n, want := sessions("faults", c.faults), sessions("none", nil); n != want {
				t.Errorf("%d sessions, want %d", n, want)
			}
		})
	}
}
