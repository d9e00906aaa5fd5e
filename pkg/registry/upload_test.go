// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// A mount needs a token for both repositories. Where the other one is denied, it
// is no mount and no error.
func TestMountAsksForBothRepositories(t *testing.T) {
	for name, deny := range map[string]string{"both": "", "one": "from"} {
		t.Run(name, func(t *testing.T) {
			front := tokenEndpoint(t)
			host, _ := servertest.Distribution(t, front.Section)
			o := registry.Options{Credentials: registry.CredentialOptions{Username: user, Password: password}}
			content := []byte("mounted: " + name)
			if _, err := newRepo(t, host+"/from", o).PushBlob(t.Context(), descOf(content), opener(content)); err != nil {
				t.Fatal(err)
			}
			front.Deny(deny)
			to := newRepo(t, host+"/to", o)
			mounted, begun, err := to.MountOrBegin(t.Context(), descOf(content), "from")
			if err != nil || mounted != (deny == "") || begun != nil {
				t.Fatalf("mounted %v, %v, %v", mounted, begun, err)
			}
			if there, err := to.BlobExists(t.Context(), descOf(content)); err != nil || there != mounted {
				t.Errorf("there %v, %v", there, err)
			}
			asked := strings.Join(front.Scopes(), " ")
			if !strings.Contains(asked, "repository:from:pull") || !strings.Contains(asked, "repository:to:pull,push") {
				t.Errorf("scopes %q", asked)
			}
			// Whatever became of the mount, an upload goes on with a token of its own.
			if up, err := to.PushBlob(t.Context(), descOf([]byte("more")), opener([]byte("more"))); err != nil || !up {
				t.Errorf("%v, %v", up, err)
			}
		})
	}
}

func TestUploadSession(t *testing.T) {
	front := tokenEndpoint(t)
	host, _ := servertest.Distribution(t, front.Section)
	proxy := servertest.FaultProxy(t, host)
	proxy.Fail(servertest.Fault{Method: http.MethodPost, Path: "/blobs/uploads/", Header: http.Header{"OCI-Chunk-Min-Length": {"4"}}})
	r := newRepo(t, proxy.Addr+"/m", registry.Options{Credentials: registry.CredentialOptions{Username: user, Password: password}})
	content := []byte("in three pieces")
	u, err := r.BeginUpload(t.Context(), "a file")
	if err != nil || u.MinChunk() != 4 {
		t.Fatalf("%+v, %v", u, err)
	}
	part := func(from, to int) func() (io.ReadCloser, error) { return opener(content[from:to]) }
	for _, at := range [][2]int{{0, 4}, {4, 9}} {
		if err := u.Send(t.Context(), int64(at[0]), int64(at[1]-at[0]), part(at[0], at[1])); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := u.Received(t.Context()); err != nil || n != 9 {
		t.Errorf("it holds %d, %v", n, err)
	}
	// Out of order, and again in order.
	err = u.Send(t.Context(), 12, 3, part(12, 15))
	if wantKind(t, err, registry.Refused); !strings.Contains(err.Error(), "a file") {
		t.Errorf("error %v does not name the file", err)
	}
	if n, err := u.Received(t.Context()); err != nil || n != 9 {
		t.Errorf("it holds %d, %v", n, err)
	}
	if err := u.Send(t.Context(), 9, 6, part(9, 15)); err != nil {
		t.Fatal(err)
	}
	wantKind(t, u.Commit(t.Context(), digest.FromString("another")), registry.Refused)
	if there, err := r.BlobExists(t.Context(), descOf(content)); err != nil || there {
		t.Errorf("there %v, %v", there, err)
	}

	if u, err = r.BeginUpload(t.Context(), "a file"); err != nil {
		t.Fatal(err)
	}
	if err := u.Send(t.Context(), 0, 15, part(0, 15)); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(t.Context(), descOf(content).Digest); err != nil {
		t.Fatal(err)
	}
	if got, err := r.FetchBlob(t.Context(), descOf(content), 100); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%q, %v", got, err)
	}

	if u, err = r.BeginUpload(t.Context(), "a file"); err != nil {
		t.Fatal(err)
	}
	u.Cancel(t.Context())
	_, err = u.Received(t.Context())
	wantKind(t, err, registry.NotFound)
}

// What a registry refuses to cancel is left to it at once, and what passes is waited for.
func TestCancelTakesNoForAnAnswer(t *testing.T) {
	const del, get = http.MethodDelete, http.MethodGet
	for name, c := range map[string]struct {
		faults   []servertest.Fault
		asked    int // to cancel
		canceled bool
	}{
		"refused":         {[]servertest.Fault{{Method: del, Status: 405}}, 1, false},
		"bad request":     {[]servertest.Fault{{Method: del, Status: 400}}, 1, false},
		"denied":          {[]servertest.Fault{{Method: del, Status: 403}}, 1, false},
		"not implemented": {[]servertest.Fault{{Method: del, Status: 501}}, 1, false},
		"still draining":  {[]servertest.Fault{{Method: del, Status: 416, Times: 2}}, 3, true},
		"overloaded":      {[]servertest.Fault{{Method: del, Status: 503, Times: 1}}, 2, true},
		"status not told": {[]servertest.Fault{{Method: del, Status: 416, Times: 1}, {Method: get, Status: 405}}, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			host, storage := servertest.Distribution(t)
			proxy := servertest.FaultProxy(t, host)
			r := newRepo(t, proxy.Addr+"/m", registry.Options{})
			u, err := r.BeginUpload(t.Context(), "a file")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.faults {
				proxy.Fail(f)
			}
			u.Cancel(t.Context())
			asked := 0
			for _, req := range proxy.Requests() {
				if req.Method == del {
					asked++
				}
			}
			if left := sessions(t, storage); asked != c.asked || (len(left) == 0) != c.canceled {
				t.Errorf("asked %d times, want %d; left %q", asked, c.asked, left)
			}
		})
	}
}

// sessions lists the uploads to repository m in a storage of distribution. Of one that
// was cancelled it can write the state of its hash once more.
func sessions(t *testing.T, storage string) []string {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(storage, "docker/registry/v2/repositories/m/_uploads/*/startedat"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// Of the tries to send a blob no session is left, whatever became of it.
func TestPushBlobLeavesNoSession(t *testing.T) {
	for name, c := range map[string]struct {
		fault servertest.Fault
		sent  bool
	}{
		"overloaded twice": {servertest.Fault{Status: 503, Times: 2}, true},
		"denied":           {servertest.Fault{Status: 403}, false},
		"never":            {servertest.Fault{Status: 503}, false},
	} {
		t.Run(name, func(t *testing.T) {
			host, storage := servertest.Distribution(t)
			proxy := servertest.FaultProxy(t, host)
			c.fault.Method, c.fault.Path = http.MethodPut, "/blobs/uploads/"
			proxy.Fail(c.fault)
			r := newRepo(t, proxy.Addr+"/m", registry.Options{Retry: registry.RetryPolicy{Budget: time.Second}})
			content := []byte("sent: " + name)
			if up, err := r.PushBlob(t.Context(), descOf(content), opener(content)); up != c.sent || (err == nil) != c.sent {
				t.Errorf("%v, %v", up, err)
			}
			if left := sessions(t, storage); len(left) > 0 {
				t.Errorf("sessions are left: %q", left)
			}
		})
	}
}

// pausing waits before its second read, as a source does that has to be fetched itself.
type pausing struct {
	io.ReadCloser
	reads int
	pause time.Duration
}

func (p *pausing) Read(b []byte) (int, error) {
	if p.reads++; p.reads == 2 {
		time.Sleep(p.pause)
	}
	return p.ReadCloser.Read(b[:min(len(b), 1000)])
}

// That what is sent has to be waited for is no silence of the registry.
func TestAnUploadMayWaitForItsSource(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	host, _ := servertest.Distribution(t)
	r := newRepo(t, host+"/m", registry.Options{AnswerTimeout: timeout})
	content := bytes.Repeat([]byte("0123456789"), 1000)
	u, err := r.BeginUpload(t.Context(), "a file")
	if err != nil {
		t.Fatal(err)
	}
	err = u.Send(t.Context(), 0, int64(len(content)), func() (io.ReadCloser, error) {
		return &pausing{ReadCloser: io.NopCloser(bytes.NewReader(content)), pause: 3 * timeout}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(t.Context(), descOf(content).Digest); err != nil {
		t.Fatal(err)
	}
}

// A registry whose storage copies a large blob into its place answers long after all of it
// has come.
func TestACommitMayTakeLongerThanOtherAnswers(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	r, proxy, _ := behind(t, registry.Options{AnswerTimeout: timeout})
	content := []byte("a large blob")
	u, err := r.BeginUpload(t.Context(), "a file")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Send(t.Context(), 0, int64(len(content)), opener(content)); err != nil {
		t.Fatal(err)
	}
	proxy.Fail(servertest.Fault{Method: http.MethodPut, Delay: 3 * timeout})
	if err := u.Commit(t.Context(), descOf(content).Digest); err != nil {
		t.Error(err)
	}
}

// A manifest is in no place that takes long: a connection that has gone silent is given up
// and the manifest sent again.
func TestAManifestIsNotAwaitedAsABlobIs(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	r, proxy, _ := behind(t, registry.Options{AnswerTimeout: timeout})
	p, err := r.Resolve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	empty := []byte{}
	for name, c := range map[string]struct {
		push    func() error
		retries int
	}{
		"manifest": {func() error {
			_, err := r.PushManifest(t.Context(), p.Subject().MediaType(), p.Manifest())
			return err
		}, 1},
		"tag": {func() error { return r.TagManifest(t.Context(), p, "v2") }, 1},
		"blob": {func() error {
			_, err := r.PushBlob(t.Context(), descOf([]byte("in one request")), opener([]byte("in one request")))
			return err
		}, 0},
		"empty blob": {func() error { _, err := r.PushBlob(t.Context(), descOf(empty), opener(empty)); return err }, 0},
	} {
		before := r.Retries()
		proxy.Reset()
		proxy.Fail(servertest.Fault{Method: http.MethodPut, Delay: 3 * timeout, Times: 1})
		if err := c.push(); err != nil || r.Retries()-before != c.retries {
			t.Errorf("%s: %v after %d retries, want %d", name, err, r.Retries()-before, c.retries)
		}
	}
}

// showing is a body that shows its bytes, and counts those that were copied.
type showing struct {
	io.ReadCloser
	copied, shown int
}

func (s *showing) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	s.copied += n
	return n, err
}

func (s *showing) Piece(n int64) ([]byte, func(), error) {
	p := make([]byte, min(n, 100_000))
	k, err := s.ReadCloser.Read(p)
	s.shown += k
	return p[:k], func() {}, err
}

// Past net/http's own buffer, which also holds the header, a body goes from where it is
// to the connection. With TLS it is copied as any other.
func TestAnUploadIsSentFromWhereItIs(t *testing.T) {
	host, _ := servertest.Distribution(t, "")
	r := newRepo(t, host+"/m", registry.Options{})
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	u, err := r.BeginUpload(t.Context(), "a file")
	if err != nil {
		t.Fatal(err)
	}
	var body *showing
	if err := u.Send(t.Context(), 0, int64(len(content)), func() (io.ReadCloser, error) {
		body = &showing{ReadCloser: io.NopCloser(bytes.NewReader(content))}
		return body, nil
	}); err != nil {
		t.Fatal(err)
	}
	if body.copied > 4<<10 || body.copied+body.shown != len(content) {
		t.Errorf("%d bytes were copied and %d shown of %d", body.copied, body.shown, len(content))
	}
	if err := u.Commit(t.Context(), descOf(content).Digest); err != nil {
		t.Fatal(err)
	}
	if got, err := r.FetchBlob(t.Context(), descOf(content), 2<<20); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// A registry that keeps less than it was sent says so in its answer.
func TestUploadNoticesWhatWasNotKept(t *testing.T) {
	r, proxy, _ := behind(t, registry.Options{})
	u, err := r.BeginUpload(t.Context(), "a file")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Fail(servertest.Fault{Method: http.MethodPatch, Header: http.Header{"Range": {"0-2"}}})
	err = u.Send(t.Context(), 0, 15, opener([]byte("in three pieces")))
	if wantKind(t, err, registry.Unavailable); !registry.Retryable(err) {
		t.Errorf("error %v is final", err)
	}
}

// The session's place on another host gets no credentials, and one that leaves TLS
// or is none is not followed.
func TestUploadDoesNotFollowSessionsAnywhere(t *testing.T) {
	for _, location := range []string{"", "ftp://x/", "http://["} {
		r, proxy, _ := behind(t, registry.Options{})
		proxy.Fail(servertest.Fault{Method: http.MethodPost, Header: http.Header{"Location": {location}}})
		_, err := r.BeginUpload(t.Context(), "a file")
		wantKind(t, err, registry.Protocol)
	}
}

func TestUploadRulesOfKnownServices(t *testing.T) {
	var whole, pieces []string
	for _, host := range []string{
		"ghcr.io", "GHCR.io:443", "gcr.io", "eu.gcr.io", "europe-docker.pkg.dev", "public.ecr.aws",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
		"quay.io", "docker.io", "127.0.0.1:5000", "registry.gitlab.com", "evilghcr.io", "pkg.dev.example.com", "ghcr.io.example.com",
	} {
		c, err := registry.NewClient(registry.Options{})
		if err != nil {
			t.Fatal(err)
		}
		ref, err := registry.ParseReference(host + "/a/b:c")
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Repository(ref)
		if err != nil {
			t.Fatal(err)
		}
		if rules := r.UploadRules(); rules.Whole {
			whole = append(whole, host)
		} else if rules.Piece > 0 {
			pieces = append(pieces, host)
		}
	}
	if len(whole) != 8 || slices.Contains(whole, "evilghcr.io") || len(pieces) != 1 || pieces[0] != "quay.io" {
		t.Errorf("whole: %q, in pieces: %q", whole, pieces)
	}
}

// TestAMountThatATokenEndpointRefusesIsNone: the blob can be sent.
func TestAMountThatATokenEndpointRefusesIsNone(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound} {
		var host string
		host = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/token" {
				w.WriteHeader(status)
				return
			}
			w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+host+`/token",service="s"`)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		mounted, begun, err := newRepo(t, host+"/to", registry.Options{}).MountOrBegin(t.Context(), descOf([]byte("x")), "from")
		if mounted || begun != nil || err != nil {
			t.Errorf("%d: mounted %v, begun %v, %v", status, mounted, begun, err)
		}
	}
}
