// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

const someDigest = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

func TestParseReferenceAccepts(t *testing.T) {
	for in, want := range map[string]registry.Reference{
		"example.com/m":                       {Registry: "example.com", Repository: "m"},
		"example.com/team/m:v1":               {Registry: "example.com", Repository: "team/m", Tag: "v1"},
		"Example.COM:5000/m:v1":               {Registry: "example.com:5000", Repository: "m", Tag: "v1"},
		"localhost/m:v1":                      {Registry: "localhost", Repository: "m", Tag: "v1"},
		"registry:5000/m":                     {Registry: "registry:5000", Repository: "m"},
		"[::1]:5000/a/b__c/d--e:V_1":          {Registry: "[::1]:5000", Repository: "a/b__c/d--e", Tag: "V_1"},
		"127.0.0.1:5000/m@" + someDigest:      {Registry: "127.0.0.1:5000", Repository: "m", Digest: someDigest},
		"example.com/m:v1@" + someDigest:      {Registry: "example.com", Repository: "m", Tag: "v1", Digest: someDigest},
		"1.dkr.ecr.eu-west-1.amazonaws.com/m": {Registry: "1.dkr.ecr.eu-west-1.amazonaws.com", Repository: "m"},
	} {
		got, err := registry.ParseReference(in)
		if err != nil || got != want {
			t.Errorf("ParseReference(%q) = %+v, %v; want %+v", in, got, err, want)
		}
	}
}

func TestParseReferenceRefuses(t *testing.T) {
	for _, in := range []string{
		"", "m", "m:v1", "library/m", "team/m:v1", "example.com", "example.com/", "example.com/m:", "example.com/m@",
		"example.com/M", "example.com/m//n", "example.com/../m", "example.com/m/../../x", "example.com/m:v1:v2",
		"example.com/m:-v1", "example.com/m:" + strings.Repeat("v", 129), "example.com/" + strings.Repeat("a", 256),
		"example.com/m@sha256:abc", "example.com/m@sha512:" + strings.Repeat("a", 128), "example.com/m@" + strings.ToUpper(someDigest),
		"example.com/m@" + someDigest + "?x=1", "https://example.com/m", "oci://example.com/m",
		"example.com:0/m", "example.com:65536/m", "example.com:x/m", "example.com:+80/m", "user@example.com/m", "exa mple.com/m",
		"[::1/m", "[::1]x/m", "[fe80::1%25eth0]/m", "-a.com/m", "a..com/m", "example.com/m\n", "example.com/m?tag=v1", "example.com/m#x",
		"example.com/" + strings.Repeat("a/", 600) + "m",
	} {
		got, err := registry.ParseReference(in)
		var re *registry.ReferenceError
		if !errors.As(err, &re) {
			t.Errorf("ParseReference(%q) = %+v, %v; want a *ReferenceError", in, got, err)
		}
		if got != (registry.Reference{}) {
			t.Errorf("ParseReference(%q) left %+v beside its error", in, got)
		}
	}
}

func TestParseReferencesSplitsTags(t *testing.T) {
	refs, err := registry.ParseReferences("example.com/m:a,b,a,c")
	if err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, ref := range refs {
		if ref.Name() != "example.com/m" {
			t.Errorf("a tag moved to %s", ref.Name())
		}
		tags = append(tags, ref.Tag)
	}
	if got := strings.Join(tags, " "); got != "a b c" {
		t.Errorf("tags %q, want a b c", got)
	}
	for _, bad := range []string{"example.com/m,b", "example.com/m@" + someDigest + ",b", "example.com/m:a,", "example.com/m:a,,b", "example.com/m:a,b/c", "example.com/m:a,n:b"} {
		var re *registry.ReferenceError
		if _, err := registry.ParseReferences(bad); !errors.As(err, &re) {
			t.Errorf("ParseReferences(%q): %v, want a *ReferenceError", bad, err)
		}
	}
}

func TestLayerLimit(t *testing.T) {
	for host, want := range map[string]int64{
		"ghcr.io": 10_000_000_000, "public.ecr.aws": 10000 << 20,
		"123456789012.dkr.ecr.eu-central-1.amazonaws.com":       52000 << 20,
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      52000 << 20,
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": 52000 << 20, "123456789012.dkr-ecr.eu-west-1.on.aws": 52000 << 20,
		"123456789012.dkr.ecr.eusc-de-east-1.amazonaws.eu": 52000 << 20, "123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": 52000 << 20,
		"dkr.ecr.amazonaws.com": 0, "x.dkr.ecr.eu.amazonaws.com.evil.example": 0, "example.com": 0, "localhost:5000": 0,
	} {
		got, name := registry.LayerLimit(host)
		if got != want || (name == "") != (want == 0) {
			t.Errorf("LayerLimit(%q) = %d, %q; want %d", host, got, name, want)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, seed := range []string{
		"example.com/m", "localhost:5000/a/b:v1", "[::1]:5000/m@" + someDigest, "example.com/m:v1@" + someDigest,
		"EXAMPLE.com/m", "https://a/b", "a/b", "a.b/c:d:e", "a.b/c@", "a.b/../c", "a.b:01/c",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := registry.ParseReference(s)
		if err != nil {
			var re *registry.ReferenceError
			if !errors.As(err, &re) {
				t.Fatalf("%q: error of type %T", s, err)
			}
			return
		}
		again, err := registry.ParseReference(ref.String())
		if err != nil || again != ref {
			t.Fatalf("%q parses to %+v, and its text %q to %+v, %v", s, ref, ref.String(), again, err)
		}
		// What becomes part of a URL must not be able to leave its place.
		for _, part := range []string{ref.Repository, ref.Tag, ref.Digest.String()} {
			if strings.ContainsAny(part, "?#%\\ \x00\n") || strings.Contains(part, "..") && part == ref.Repository {
				t.Fatalf("%q lets %q through", s, part)
			}
		}
	})
}

func TestRefusedReferenceShowsNoPassword(t *testing.T) {
	for _, s := range []string{
		"ci:hunter2@registry.example.com/m:v1", "https://ci:hunter2@registry.example.com/m:v1",
		"https://ci:hun@ter2@registry.example.com", "ci:hunter2@/m:v1",
	} {
		_, err := registry.ParseReference(s)
		var re *registry.ReferenceError
		if !errors.As(err, &re) {
			t.Fatalf("%s: error %v, want a *ReferenceError", s, err)
		}
		if strings.Contains(err.Error(), "ter2") || strings.Contains(err.Error(), "hun") {
			t.Errorf("the password is shown: %v", err)
		}
	}
}
