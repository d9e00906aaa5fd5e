// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// reply is a registry that has one answer for everything.
type reply struct {
	status int
	header http.Header
	body   []byte
	asked  []*http.Request
}

func (r *reply) RoundTrip(req *http.Request) (*http.Response, error) {
	r.asked = append(r.asked, req)
	if req.Body != nil {
		if err := req.Body.Close(); err != nil {
			return nil, err
		}
	}
	return &http.Response{
		Status: http.StatusText(r.status), StatusCode: r.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: r.header.Clone(),
		Body: io.NopCloser(bytes.NewReader(r.body)), ContentLength: int64(len(r.body)), Request: req,
	}, nil
}

// repositoryOf is a repository over TLS, with a credential, that r answers for.
func repositoryOf(t testing.TB, r *reply) *Repository {
	t.Helper()
	now := time.Unix(1_800_000_000, 0)
	c, err := NewClient(Options{
		Credentials: CredentialOptions{Username: "user", Password: "hunter2-hunter2"},
		Now:         func() time.Time { return now }, Retry: RetryPolicy{Budget: time.Nanosecond},
		Sleep: func(context.Context, time.Duration) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport.(*meter).next = r
	ref, err := ParseReference("registry.example.com/team/model:v1")
	if err != nil {
		t.Fatal(err)
	}
	repo, err := c.Repository(ref)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// FuzzAnswers has a registry say the same to every request: what is returned is
// what its digest says, every error is a typed one, no password is in any text,
// and none goes to another host.
func FuzzAnswers(f *testing.F) {
	const index = ocispec.MediaTypeImageIndex
	listed := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":"sha256:%064d","size":2}]}`, index, ocispec.MediaTypeImageManifest, 1)
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{},"layers":[]}`, ocispec.MediaTypeImageManifest)
	f.Add(200, index, "", "", "", []byte(listed))
	f.Add(200, ocispec.MediaTypeImageManifest, "", digest.FromString(manifest).String(), "", []byte(manifest))
	f.Add(200, ocispec.MediaTypeImageManifest, "", digest.FromString("x").String(), "", []byte(manifest))
	f.Add(200, index, `</v2/team/model/referrers/x?n=1&last=a,b>; rel="next"`, "", "", []byte(listed))
	f.Add(200, "application/json", `<https://evil.example.com/v2/>;rel=next`, "", "", []byte(`{"tags":["a","b",""]}`))
	f.Add(401, "application/json", "", "", `Bearer realm="https://evil.example.com/token",service="s",scope="repository:x:pull"`, []byte(`{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}`))
	f.Add(401, "", "", "", `Bearer realm="http://evil.example.com/token"`, []byte("{}"))
	f.Add(401, "text/plain", "", "", `Basic realm="x", charset=`, []byte("no"))
	f.Add(401, "", "", "", `Bearer realm="`, []byte(`{"token":"t"}`))
	f.Add(404, "text/html; charset=utf-8", "", "", "", []byte("<html>"))
	f.Add(429, "text/plain", "", "", "", []byte("too many"))
	f.Add(301, "", "", "", "", []byte(nil))
	subject, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, []byte(manifest))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, status int, contentType, link, says, challenge string, body []byte) {
		r := &reply{status: 100 + (status%500+500)%500, body: body, header: http.Header{
			"Content-Type": {contentType}, "Link": {link}, digestHeader: {says}, "Www-Authenticate": {challenge},
		}}
		repo := repositoryOf(t, r)
		ctx := t.Context()
		p, err := repo.Resolve(ctx)
		expectTyped(t, err)
		if err == nil && (p.Subject().Digest() != digest.FromBytes(body) || !bytes.Equal(p.Manifest(), body)) {
			t.Fatalf("resolved %s", p.Subject())
		}
		desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromString(manifest), Size: int64(len(manifest))}
		got, err := repo.FetchManifest(ctx, desc)
		expectTyped(t, err)
		blob, blobErr := repo.FetchBlob(ctx, desc, 1<<20)
		expectTyped(t, blobErr)
		if err == nil && string(got) != manifest || blobErr == nil && string(blob) != manifest {
			t.Fatalf("fetched %q and %q", got, blob)
		}
		for d, err := range repo.Referrers(ctx, subject) {
			if expectTyped(t, err); err == nil && (checkDigest(d.Digest.String()) != "" || d.Size < 0) {
				t.Fatalf("listed %+v", d)
			}
		}
		for _, err := range repo.Tags(ctx) {
			expectTyped(t, err)
		}
		_, _, err = repo.Classic(ctx, subject)
		expectTyped(t, err)
		_, _, err = repo.ResolveTag(ctx, "v1")
		expectTyped(t, err)
		for _, req := range r.asked {
			if req.URL.Scheme != "https" {
				t.Fatalf("left TLS for %s", req.URL)
			}
			// The endpoint for tokens that a registry names is the one other host that
			// may get the password.
			if _, _, sent := req.BasicAuth(); sent && req.URL.Host != "registry.example.com" && !strings.Contains(strings.ToLower(challenge), "bearer") {
				t.Fatalf("the password went to %s", req.URL)
			}
		}
	})
}

// expectTyped wants every failure to be one that a caller can act on.
func expectTyped(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if err == nil {
		return
	}
	if !errors.As(err, &e) {
		t.Fatalf("of no type: %v (%T)", err, err)
	}
	if text := err.Error(); strings.Contains(text, "hunter2-hunter2") || strings.ContainsAny(text, "\x00\x1b\n\r") {
		t.Fatalf("the error shows %q", text)
	}
}

// FuzzHeaders holds what headers may lead to: pages on the same registry, uploads
// that do not leave TLS, and ranges that are those asked for.
func FuzzHeaders(f *testing.F) {
	f.Add(`</v2/m/tags/list?last=a,b&n=2>; rel="next"`, "/v2/m/blobs/uploads/1?state=a%2Fb", "bytes 5-9/10", "3", int64(5), int64(10))
	f.Add(`<http://registry.example.com/x>;rel=next`, "http://other.example.com/up", "bytes 5-4/10", "Wed, 21 Oct 2026 07:28:00 GMT", int64(5), int64(10))
	f.Add(`<//evil/>; REL=" next"`, "//evil/up#x", "bytes 0-99999999999999999999/1", "-1", int64(0), int64(1))
	f.Add(`</v2/m/tags/list?last=b>; rel="next"`, "?state=1", "Bytes 5-9/10", "3", int64(5), int64(10))
	f.Add(`<%zz>;rel=next`, "https://user:pass@host/", "bytes 0-0/*", "99999999999999999999", int64(0), int64(1))
	repo := repositoryOf(f, &reply{status: http.StatusOK})
	f.Fuzz(func(t *testing.T, link, location, contentRange, after string, offset, size int64) {
		at := repo.path("tags", "list")
		if target := nextLink([]string{link}); target != "" {
			next, err := repo.nextPage("m", at, target)
			if err == nil && (next.Scheme != "https" || !strings.EqualFold(next.Host, "registry.example.com") && !strings.EqualFold(next.Host, "registry.example.com:443") || next.User != nil || next.Fragment != "") {
				t.Fatalf("%s leads to %s", link, next)
			}
		}
		from := repo.path("blobs", "uploads", "")
		up, err := repo.location("push", "m", &from, location)
		if err == nil && (up.Scheme != "https" || up.Host == "" || up.User != nil || up.Fragment != "") {
			t.Fatalf("%s leads to %s", location, up)
		}
		if wait, ok := retryAfter(after, time.Unix(1_800_000_000, 0)); wait < 0 || !ok && wait != 0 {
			t.Fatalf("%q is a wait of %v", after, wait)
		}
		if offset < 0 || size < 0 {
			return
		}
		got := &answer{status: http.StatusPartialContent, length: -1, header: http.Header{"Content-Range": {contentRange}}}
		if checkRange(call{op: "fetch", about: "m"}, got, ocispec.Descriptor{Size: size}, offset, size) != nil {
			return
		}
		var first, last int64
		if n, err := fmt.Sscanf(strings.ToLower(contentRange), "bytes %d-%d/", &first, &last); n != 2 || err != nil || first != offset || last < first || last >= size {
			t.Fatalf("%q was taken for byte %d on of %d", contentRange, offset, size)
		}
	})
}

// FuzzLists holds that joining a list under a tag keeps what others wrote there.
func FuzzLists(f *testing.F) {
	for _, s := range []string{
		`{"schemaVersion":2,"manifests":[{"digest":"sha256:x","size":1,"extra":true}],"other":{"a":1}}`, `{"layers":[{"digest":"sha256:x","annotations":{"a":"b"}}]}`,
		`{"manifests":null,"layers":null}`, `{"manifests":[1,"x",null]}`, `{"layers":[1]}`, `{"Manifests":[]}`, `[]`, `null`, `{}`,
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	subject, err := signature.SubjectOf(ocispec.MediaTypeImageManifest, []byte("{}"))
	if err != nil {
		f.Fatal(err)
	}
	own := json.RawMessage(fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%064d","size":7}`, ocispec.MediaTypeImageManifest, 7))
	f.Fuzz(func(t *testing.T, body []byte, classic bool) {
		r := &reply{status: http.StatusOK, body: body, header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}}}
		repo, field := repositoryOf(t, r), "manifests"
		var l list = &referrerList{repo: repo, subject: subject}
		if classic {
			r.header.Set("Content-Type", ocispec.MediaTypeImageManifest)
			l, field = &classicList{repo: repo, subject: subject}, "layers"
		}
		now, err := l.read(t.Context(), opAttach, "m")
		if err != nil {
			expectTyped(t, err)
			return
		}
		before := now.keyed()
		_, written, err := l.with(t.Context(), now, []json.RawMessage{own})
		if err != nil {
			return // a layer that is none: nothing is written
		}
		var was, is map[string]json.RawMessage
		var list, wasList []json.RawMessage
		if json.Unmarshal(body, &was) != nil || json.Unmarshal(written, &is) != nil || json.Unmarshal(is[field], &list) != nil {
			t.Fatalf("%s became %s", body, written)
		}
		if raw, ok := was[field]; ok && json.Unmarshal(raw, &wasList) != nil {
			t.Fatalf("%s was taken for a list", raw)
		}
		if len(list) != len(wasList)+1 || string(list[len(list)-1]) != string(own) {
			t.Fatalf("%s became %s", body, written)
		}
		for i, entry := range wasList {
			if compact(entry) != compact(list[i]) {
				t.Fatalf("%s became %s", entry, list[i])
			}
		}
		for name := range was {
			if _, ok := is[name]; !ok {
				t.Fatalf("the field %q is lost", name)
			}
		}
		if len(before) > len(wasList) {
			t.Fatalf("%d entries by key of %d", len(before), len(wasList))
		}
	})
}

func compact(raw json.RawMessage) string {
	out, err := json.Marshal(raw)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// FuzzDockerConfig reads a config.json that holds secrets: no error quotes one,
// and an entry serves no other registry.
func FuzzDockerConfig(f *testing.F) {
	auth := base64.StdEncoding.EncodeToString([]byte("user:hunter2-hunter2"))
	for _, s := range []string{
		`{"auths":{"registry.example.com":{"auth":"` + auth + `"}}}`, `{"auths":{"https://registry.example.com/v1/":{"username":"u","password":"hunter2-hunter2"}}}`,
		`{"auths":{"registry.example.com/team":{"identitytoken":"hunter2-hunter2"}}}`, `{"auths":{"registry.example.com":{"auth":"hunter2-hunter2"}}}`,
		`{"auths":{"other.example.com":{"auth":"` + auth + `"}}}`, `{"auths":["hunter2-hunter2"]}`, `{"auths":{"":{}}}`, `hunter2-hunter2`, ` `, `null`,
	} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "config.json")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		config, err := readDockerConfig(path)
		var bad *ConfigError
		if err != nil {
			if !errors.As(err, &bad) || strings.Contains(err.Error(), "hunter2") {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		config.CredHelpers, config.CredsStore = nil, "" // programs are not run here
		for _, exact := range []bool{true, false} {
			chain := &credentialChain{configs: []*dockerConfig{config}, exact: exact}
			cred, err := chain.find(t.Context(), "registry.example.com", "team/model")
			if err != nil && (!errors.As(err, &bad) || strings.Contains(err.Error(), "hunter2")) {
				t.Fatalf("%T: %v", err, err)
			}
			named := slices.ContainsFunc(slices.Collect(maps.Keys(config.Auths)), func(k string) bool {
				return strings.Contains(strings.ToLower(k), "registry.example.com") || !exact && strings.ContainsAny(k, "*?[")
			})
			if cred.Username+cred.Password+cred.RefreshToken+cred.AccessToken != "" && !named {
				t.Fatalf("the credential of another registry was found in %s, exact %v", raw, exact)
			}
		}
	})
}

// FuzzParseResolve holds that what is connected to is an address, and never a
// name that somebody else resolves.
func FuzzParseResolve(f *testing.F) {
	for _, s := range []string{"h:443:127.0.0.1", "h:443:127.0.0.1:8443", "[::1]:443:[::2]:1", "h:443:[::1", "h:0:1.2.3.4", "h:443:evil.example.com", ":::", "a:1:1.2.3.4:5:6"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, to, err := parseResolve(s)
		if err != nil {
			if from != "" || to != "" {
				t.Fatalf("%q: %q, %q, %v", s, from, to, err)
			}
			return
		}
		u, err := url.Parse("tcp://" + to)
		if err != nil || u.Port() == "" || strings.Trim(u.Hostname(), "0123456789abcdefABCDEF.:%") != "" || from != strings.ToLower(from) {
			t.Fatalf("%q leads from %q to %q", s, from, to)
		}
	})
}
