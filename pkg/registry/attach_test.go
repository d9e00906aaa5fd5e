// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"cuelabs.dev/go/oci/ociregistry/ociserver"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Eight signers at once, each a client of its own with its real waits, as eight
// jobs of a CI are.
func TestConcurrentAttachLosesNone(t *testing.T) {
	t.Parallel()
	distribution, _ := servertest.Distribution(t)
	for name, host := range map[string]string{"tag schema": distribution, "referrers API": servertest.SharedStack(t).Registry} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const signers = 8
			ref := host + "/concurrent/m"
			real := registry.Options{Sleep: func(ctx context.Context, d time.Duration) error {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(d):
					return nil
				}
			}}
			p := pushImage(t, newRepo(t, ref, real), "v1", "layer")
			errs := make([]error, signers)
			var wg sync.WaitGroup
			for i := range signers {
				wg.Go(func() {
					_, errs[i] = newRepo(t, ref, real).Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", fmt.Sprint(i)))
				})
			}
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			names := make(map[string]bool)
			for _, d := range listed(t, newRepo(t, ref, real), p.Subject()) {
				names[d.Annotations["name"]] = true
			}
			if len(names) != signers {
				t.Errorf("%d of %d are listed: %v", len(names), signers, names)
			}
		})
	}
}

func TestAttachFailsWhenItIsNeverListed(t *testing.T) {
	for name, o := range map[string]*ociserver.Options{"API": nil, "tag": {DisableReferrersAPI: true}} {
		t.Run(name, func(t *testing.T) {
			forget := answer(func(req *http.Request) bool {
				// The write of the list is taken and forgotten.
				return req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/sha256-")
			}, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
			hide := answer(func(req *http.Request) bool { return o == nil && strings.Contains(req.URL.Path, "/referrers/") },
				func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
					fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
				})
			w := new(waits)
			budget := 20 * time.Second
			r := newRepo(t, memRegistry(t, o, forget, hide)+"/m", registry.Options{Sleep: w.sleep, Retry: registry.RetryPolicy{Budget: budget}})
			p := pushImage(t, r, "v1", "layer")
			_, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "lost"))
			wantKind(t, err, registry.NotListed)
			if total := w.total(); total > budget || total < budget/4 {
				t.Errorf("waited %s of a budget of %s", total, budget)
			}
		})
	}
}

// TestEnlistPushesAgainWhatIsLost: a registry with the API lists some of what is pushed at
// once only when it is pushed a second time.
func TestEnlistPushesAgainWhatIsLost(t *testing.T) {
	var mu sync.Mutex
	pushed := make(map[string]int)
	lose := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if _, dgst, ok := strings.Cut(req.URL.Path, "/manifests/"); ok && req.Method == http.MethodPut {
				pushed[dgst]++
			}
			if !strings.Contains(req.URL.Path, "/referrers/") {
				next.ServeHTTP(w, req)
				return
			}
			got := httptest.NewRecorder()
			next.ServeHTTP(got, req)
			var index ocispec.Index
			if err := json.Unmarshal(got.Body.Bytes(), &index); err != nil {
				t.Error(err)
			}
			index.Manifests = slices.DeleteFunc(index.Manifests, func(d ocispec.Descriptor) bool {
				return d.Annotations["name"] == "lost" && pushed[d.Digest.String()] < 2
			})
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_ = json.NewEncoder(w).Encode(index)
		})
	}
	r := newRepo(t, memRegistry(t, nil, lose)+"/m", registry.Options{})
	p := pushImage(t, r, "v1", "layer")
	var entries []ocispec.Descriptor
	for i := range 6 {
		name := []string{"kept", "lost"}[i%2]
		raw := bytes.Replace(referrer(p.Subject(), "layer", name), []byte(`"annotations":{`), fmt.Appendf(nil, `"annotations":{"n":"%d",`, i), 1)
		made, err := r.PushManifest(t.Context(), ocispec.MediaTypeImageManifest, raw)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, made.Subject().Descriptor())
	}
	if err := r.Enlist(t.Context(), p.Subject(), entries...); err != nil {
		t.Fatal(err)
	}
	if n := len(listed(t, r, p.Subject())); n != len(entries) {
		t.Errorf("%d are listed, want %d", n, len(entries))
	}
	for i, e := range entries {
		if n := pushed[e.Digest.String()]; n != i%2+1 {
			t.Errorf("%d was pushed %d times", i, n)
		}
	}
	before := r.Requests()
	if err := r.Enlist(t.Context(), p.Subject()); err != nil || r.Requests() != before {
		t.Errorf("nothing to enlist: %v, after %d requests", err, r.Requests()-before)
	}
}

// TestAttachPushesAgainAManifestThatIsLost: the registry says that it has it, and has not.
func TestAttachPushesAgainAManifestThatIsLost(t *testing.T) {
	puts := 0
	lose := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/manifests/") {
				if puts++; puts == 3 { // the image's come first
					w.WriteHeader(http.StatusCreated)
					return
				}
			}
			next.ServeHTTP(w, req)
		})
	}
	r := newRepo(t, memRegistry(t, nil, lose)+"/m", registry.Options{})
	p := pushImage(t, r, "v1", "layer")
	if _, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "lost")); err != nil || puts != 4 {
		t.Errorf("after %d writes: %v", puts, err)
	}
	if all := listed(t, r, p.Subject()); len(all) != 1 || len(all[0].Data) > 0 {
		t.Errorf("listed %+v", all)
	}
}

// TestEnlistWaitsForAManifestThatCannotBeHad yet, and says which one when it never can.
func TestEnlistWaitsForAManifestThatCannotBeHad(t *testing.T) {
	r := newRepo(t, memRegistry(t, nil)+"/m", registry.Options{Retry: registry.RetryPolicy{Budget: 20 * time.Second}})
	p := pushImage(t, r, "v1", "layer")
	gone := descOf([]byte("gone"))
	gone.MediaType = ocispec.MediaTypeImageManifest
	err := r.Enlist(t.Context(), p.Subject(), gone)
	if wantKind(t, err, registry.NotListed); !strings.Contains(err.Error(), gone.Digest.String()) {
		t.Errorf("error %v", err)
	}
}

// TestEnlistWritesNoListThatNobodyReads: with so many entries no signature in it would
// count, and none could be added.
func TestEnlistWritesNoListThatNobodyReads(t *testing.T) {
	writes, list := 0, []byte(`{"schemaVersion":2,"manifests":[]}`)
	// It takes a list that names what it does not have.
	lists := answer(func(req *http.Request) bool { return strings.Contains(req.URL.Path, "/manifests/sha256-") },
		func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut {
				writes++
				list, _ = io.ReadAll(req.Body)
				w.WriteHeader(http.StatusCreated)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			_, _ = w.Write(list)
		})
	r := newRepo(t, memRegistry(t, &ociserver.Options{DisableReferrersAPI: true}, lists)+"/m", registry.Options{})
	p := pushImage(t, r, "v1", "layer")
	var entries []ocispec.Descriptor
	for i := range 12000 {
		d := descOf([]byte(strconv.Itoa(i)))
		d.MediaType = ocispec.MediaTypeImageManifest
		entries = append(entries, d)
	}
	if err := r.Enlist(t.Context(), p.Subject(), entries[:6000]...); err != nil || writes != 1 {
		t.Fatalf("after %d writes: %v", writes, err)
	}
	for _, n := range []int{10000, 12000} {
		wantKind(t, r.Enlist(t.Context(), p.Subject(), entries[6000:n]...), registry.TooLarge)
	}
	if n := len(listed(t, r, p.Subject())); n != 6000 || writes != 1 {
		t.Errorf("%d are listed after %d writes", n, writes)
	}
	if err := r.Enlist(t.Context(), p.Subject(), entries[6000:9999]...); err != nil || len(listed(t, r, p.Subject())) != 9999 {
		t.Errorf("as many as can be: %v", err)
	}
}

func TestEnlistRefusesWhatNamesNothing(t *testing.T) {
	r := newRepo(t, memRegistry(t, nil)+"/m", registry.Options{})
	p := pushImage(t, r, "v1", "layer")
	before := r.Requests()
	for _, err := range []error{
		r.Enlist(t.Context(), p.Subject(), descOf([]byte("x")), ocispec.Descriptor{}),
		r.Enlist(t.Context(), signature.Subject{}, descOf([]byte("x"))),
	} {
		if err == nil {
			t.Error("it was enlisted")
		}
	}
	if n := r.Requests() - before; n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// TestNotListedNamesOurs, and prints nothing that others wrote into the list.
func TestNotListedNamesOurs(t *testing.T) {
	reads := 0
	list := answer(func(req *http.Request) bool { return strings.Contains(req.URL.Path, "/manifests/sha256-") },
		func(w http.ResponseWriter, req *http.Request) {
			if req.Method == http.MethodPut {
				w.WriteHeader(http.StatusCreated)
				return
			}
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			if reads++; reads == 1 {
				fmt.Fprint(w, `{"schemaVersion":2,"manifests":[{"digest":"\u001b[31mFORGED\nline"}]}`)
				return
			}
			fmt.Fprint(w, `{"schemaVersion":2,"manifests":[]}`)
		})
	r := newRepo(t, memRegistry(t, &ociserver.Options{DisableReferrersAPI: true}, list)+"/m", registry.Options{Retry: registry.RetryPolicy{Budget: 5 * time.Second}})
	p := pushImage(t, r, "v1", "layer")
	raw := referrer(p.Subject(), "layer", "x")
	_, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, raw)
	if wantKind(t, err, registry.NotListed); !strings.Contains(err.Error(), digest.FromBytes(raw).String()) || strings.Contains(err.Error(), "FORGED") {
		t.Errorf("error %q", err)
	}
}

func TestAttachRefusesWhatIsNotAboutTheSubject(t *testing.T) {
	r := newRepo(t, memRegistry(t, nil)+"/m", registry.Options{})
	a, b := pushImage(t, r, "a", "layer"), pushImage(t, r, "b", "other")
	before := r.Requests()
	for name, raw := range map[string][]byte{
		"another subject": referrer(b.Subject(), "layer", "x"),
		"no subject":      b.Manifest(),
		"no JSON":         []byte("{"),
	} {
		if _, err := r.Attach(t.Context(), a.Subject(), ocispec.MediaTypeImageManifest, raw); err == nil {
			t.Errorf("%s was attached", name)
		}
	}
	if n := r.Requests() - before; n > 0 {
		t.Errorf("%d requests were sent", n)
	}
}

// evilLists are answers under the tag of referrers that are no list of referrers.
func evilLists(subject registry.Pinned) map[string]struct {
	mediaType string
	body      []byte
} {
	index := func(s string) []byte { return []byte(s) }
	return map[string]struct {
		mediaType string
		body      []byte
	}{
		"the subject itself":   {subject.Subject().MediaType(), subject.Manifest()},
		"an image manifest":    {ocispec.MediaTypeImageManifest, index(`{"schemaVersion":2,"config":{},"layers":[]}`)},
		"a docker list":        {"application/vnd.docker.distribution.manifest.list.v2+json", index(`{"schemaVersion":2,"manifests":[]}`)},
		"HTML":                 {"text/html", index(`<html>`)},
		"an array":             {ocispec.MediaTypeImageIndex, index(`[]`)},
		"manifests of numbers": {ocispec.MediaTypeImageIndex, index(`{"schemaVersion":2,"manifests":7}`)},
	}
}

func TestFallbackListThatIsNoneIsRefusedAndNotOverwritten(t *testing.T) {
	for name := range evilLists(registry.Pinned{}) {
		t.Run(name, func(t *testing.T) {
			var evil struct {
				mediaType string
				body      []byte
			}
			writes := 0
			swap := func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
					if !strings.Contains(req.URL.Path, "/manifests/sha256-") {
						next.ServeHTTP(w, req)
						return
					}
					if req.Method == http.MethodPut {
						writes++
					}
					w.Header().Set("Content-Type", evil.mediaType)
					w.Header().Set("Docker-Content-Digest", digest.FromBytes(evil.body).String())
					w.Write(evil.body)
				})
			}
			r := newRepo(t, memRegistry(t, &ociserver.Options{DisableReferrersAPI: true}, swap)+"/m", registry.Options{})
			p := pushImage(t, r, "v1", "layer")
			evil = evilLists(p)[name]
			var fe *registry.FallbackError
			_, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "x"))
			if wantKind(t, err, registry.Protocol); !errors.As(err, &fe) || fe.Tag != "sha256-"+p.Subject().Digest().Encoded() {
				t.Errorf("attach: %v", err)
			}
			entries := 0
			err = nil
			for _, listErr := range r.Referrers(t.Context(), p.Subject()) {
				if err = listErr; err == nil {
					entries++
				}
			}
			// To a reader the subject itself is no list at all.
			if none := name == "the subject itself"; none != (err == nil) || !none && !errors.As(err, &fe) || entries > 0 || writes > 0 {
				t.Errorf("list: %v, with %d entries; the tag was written %d times", err, entries, writes)
			}
		})
	}
}

// Others' fields and entries in a fallback list survive ours, those that we
// cannot read too.
func TestAttachKeepsWhatOthersWrote(t *testing.T) {
	host := memRegistry(t, &ociserver.Options{DisableReferrersAPI: true})
	r := newRepo(t, host+"/m", registry.Options{})
	p := pushImage(t, r, "v1", "layer")
	if _, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "first")); err != nil {
		t.Fatal(err)
	}
	first := listed(t, r, p.Subject())[0]
	tag := "http://" + host + "/v2/m/manifests/sha256-" + p.Subject().Digest().Encoded()
	theirs := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"annotations":{"tool":"other"},"manifests":[{"mediaType":%q,"digest":%q,"size":%d,"x-theirs":"kept"}]}`,
		ocispec.MediaTypeImageIndex, first.MediaType, first.Digest, first.Size)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, tag, strings.NewReader(theirs))
	req.Header.Set("Content-Type", ocispec.MediaTypeImageIndex)
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	if _, err := r.Attach(t.Context(), p.Subject(), ocispec.MediaTypeImageManifest, referrer(p.Subject(), "layer", "second")); err != nil {
		t.Fatal(err)
	}
	resp, err = http.Get(tag)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Annotations map[string]string
		Manifests   []map[string]any
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Annotations["tool"] != "other" || len(got.Manifests) != 2 || got.Manifests[0]["x-theirs"] != "kept" {
		t.Errorf("the list is %+v", got)
	}
}

func TestReferrersListEndsAtItsBounds(t *testing.T) {
	page := func(w http.ResponseWriter, link string, entries int) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
		if link != "" {
			w.Header().Set("Link", link)
		}
		fmt.Fprint(w, `{"schemaVersion":2,"manifests":[`)
		for i := range entries {
			if i > 0 {
				fmt.Fprint(w, ",")
			}
			fmt.Fprintf(w, `{"mediaType":%q,"digest":"sha256:%064x","size":1}`, ocispec.MediaTypeImageManifest, i)
		}
		fmt.Fprint(w, "]}")
	}
	pages := 0
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked for a page") }))
	defer other.Close()
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		kind  registry.Kind
		pages int
	}{
		"endless links": {func(w http.ResponseWriter, r *http.Request) {
			page(w, fmt.Sprintf(`</v2/m/referrers/x?n=%d>; rel="next"`, pages), 1)
		}, registry.TooLarge, 100},
		"a circle": {func(w http.ResponseWriter, r *http.Request) {
			page(w, fmt.Sprintf(`<%s?n=1>; rel="next"`, r.URL.Path), 1)
		}, registry.Protocol, 2},
		"too many entries":       {func(w http.ResponseWriter, _ *http.Request) { page(w, "", 10_001) }, registry.TooLarge, 1},
		"a link to another host": {func(w http.ResponseWriter, _ *http.Request) { page(w, "<"+other.URL+`/v2/>; rel="next"`, 1) }, registry.Protocol, 1},
		"no JSON": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			fmt.Fprint(w, "{")
		}, registry.Protocol, 1},
		"a page that has no end": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
			flood(w)
		}, registry.TooLarge, 1},
		"second page is missing": {func(w http.ResponseWriter, r *http.Request) {
			if pages > 1 {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			page(w, `<?n=1>; rel="next"`, 1)
		}, registry.Protocol, 2},
	} {
		t.Run(name, func(t *testing.T) {
			pages = 0
			host := memRegistry(t, nil, answer(get("/referrers/"), func(w http.ResponseWriter, r *http.Request) {
				pages++
				c.serve(w, r)
			}))
			r := newRepo(t, host+"/m", registry.Options{})
			p := pushImage(t, r, "v1", "layer")
			var err error
			for _, err = range r.Referrers(t.Context(), p.Subject()) {
			}
			wantKind(t, err, c.kind)
			if pages != c.pages {
				t.Errorf("%d pages were asked for, want %d", pages, c.pages)
			}
		})
	}
}

// flood writes until the client hangs up.
func flood(w http.ResponseWriter) {
	for range 1 << 10 {
		if _, err := w.Write(make([]byte, 1<<20)); err != nil {
			return
		}
	}
}
