// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
)

const salt = "2f1d5f7c-0b5e-4c1b-9f0e-1a2b3c4d5e6f"

// logged is value as a device with the test's salt writes it.
func logged(value string) string {
	h, _ := Salt(salt)(context.Background(), value)
	return h
}

// line makes an entry in the form that OpenBao 2.4.0 and Vault 1.21.0 write.
// The values are hashed unless raw.
func line(typ, id, key, response string) string {
	s := fmt.Sprintf(`{"time":"2026-11-24T15:07:54.9Z","type":%q,"auth":{"display_name":"jwt-ci","metadata":{"role":"ci","repository":"org/repo"},"token_type":"service","token_ttl":600},"request":{"id":%q,"operation":"update","mount_point":"transit/","mount_type":"transit","path":"transit/sign/%s","data":{"hash_algorithm":%q}}`,
		typ, id, key, logged("sha2-256"))
	if response != "" {
		s += `,"response":{"mount_type":"transit","data":` + response + `}`
	}
	return s + "}\n"
}

// call is both entries of one sign request.
func call(id, key string, values ...string) string {
	var items []string
	for _, v := range values {
		items = append(items, fmt.Sprintf(`{"error":%q,"key_version":1,"signature":%q}`, logged(""), v))
	}
	return line("request", id, key, "") + line("response", id, key, `{"batch_results":[`+strings.Join(items, ",")+`]}`)
}

func sig(text string) Signature {
	return Signature{Reference: "registry.example.com/models/vad@sha256:1", Digest: "sha256:" + text, Format: "sigstore", Bytes: []byte(text)}
}

func report(t *testing.T, sigs []Signature, o Options, logs ...string) Report {
	t.Helper()
	m, err := New(t.Context(), sigs, o)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range logs {
		if err := m.Read(t.Context(), fmt.Sprint("log", i), strings.NewReader(l)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := m.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func wantOutcome(t *testing.T, r Report, outcome string) {
	t.Helper()
	if r.Outcome != outcome {
		t.Fatalf("outcome %q, want %q: %+v", r.Outcome, outcome, r)
	}
}

var withSalt = Options{Hash: Salt(salt)}

// TestSaltHashesAsADeviceDoes holds Salt against openssl: printf %s VALUE |
// openssl dgst -sha256 -hmac SALT.
func TestSaltHashesAsADeviceDoes(t *testing.T) {
	const want = "hmac-sha256:5ea872ccc29bbd5a8d6937e647bc24bafe9186af46b6da36d21a9b0c2c60268c"
	if got := logged("vault:v1:AAAA"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestMatchesByValueAlone(t *testing.T) {
	a, b := sig("a"), sig("b")
	log := call("1", "k", logged(a.value(1))) + call("2", "k", logged(b.value(1)))
	wantOutcome(t, report(t, []Signature{a, b}, withSalt, log), "explained")

	// The hints of a on another signature do not help it.
	forged := sig("forged")
	forged.RequestID, forged.KeyVersion = "1", 1
	r := report(t, []Signature{a, b, forged}, withSalt, log)
	wantOutcome(t, r, "unexplained")
	if r.Signatures[2].Status != Unexplained || r.Signatures[0].Status != Proven {
		t.Errorf("%+v", r.Signatures)
	}
	// One signature in two repositories is explained in both, whatever the hints.
	twice := a
	twice.KeyVersion = 5
	r = report(t, []Signature{a, b, twice}, withSalt, log)
	wantOutcome(t, r, "explained")
	if r.Signatures[2].Event.RequestID != "1" {
		t.Errorf("%+v", r.Signatures[2])
	}
	// A second copy of the log changes nothing.
	r = report(t, []Signature{a}, withSalt, log, log)
	wantOutcome(t, r, "unexplained")
	if len(r.Unexplained) != 1 || r.Unexplained[0].RequestID != "2" {
		t.Errorf("%+v", r.Unexplained)
	}
}

// TestOneSignatureOfSeveralRequests: a key that signs alike each time was asked
// twice.
func TestOneSignatureOfSeveralRequests(t *testing.T) {
	s := sig("a")
	first := strings.ReplaceAll(call("1", "k", logged(s.value(1))), "15:07", "15:01")
	r := report(t, []Signature{s}, withSalt, call("2", "k", logged(s.value(1)))+first)
	wantOutcome(t, r, "explained")
	if e := r.Signatures[0]; e.Event.RequestID != "1" || !strings.Contains(e.Reason, "2 requests") || len(r.Unexplained) != 0 {
		t.Errorf("%+v", r)
	}
}

func TestVersionsThatNoHintNames(t *testing.T) {
	s := sig("a")
	s.KeyVersion = 3
	at := strings.Replace(call("1", "k", logged(s.value(4711))), `"key_version":1`, `"key_version":4711`, 1)
	r := report(t, []Signature{s}, withSalt, at)
	wantOutcome(t, r, "explained")
	if r.Signatures[0].Event.KeyVersion != 4711 {
		t.Errorf("%+v", r.Signatures[0].Event)
	}
	s.KeyVersion = maxVersion + 1 // nonsense is no hint
	wantOutcome(t, report(t, []Signature{s}, withSalt, at), "explained")
}

func TestRawLogsNeedNoHash(t *testing.T) {
	s := sig("a")
	raw := strings.ReplaceAll(call("1", "k", s.value(1)), logged("sha2-256"), "sha2-256")
	r := report(t, []Signature{s}, Options{}, raw)
	wantOutcome(t, r, "explained")
	wantOutcome(t, report(t, nil, Options{}, raw), "unexplained")
	wantOutcome(t, report(t, []Signature{sig("b")}, Options{}, raw), "unexplained")
}

func TestWithoutHashNothingIsProven(t *testing.T) {
	s := sig("a")
	s.RequestID = "1"
	log := call("1", "k", logged(s.value(1)))
	r := report(t, []Signature{s}, Options{}, log)
	wantOutcome(t, r, "undecided")
	if r.Signatures[0].Status != Hinted || r.Signatures[0].Event.Role != "ci" || len(r.Unexplained) != 0 {
		t.Errorf("%+v", r)
	}
	r = report(t, []Signature{sig("a")}, Options{}, log)
	wantOutcome(t, r, "undecided")
	if r.Signatures[0].Status != Undecided || len(r.Unexplained) != 1 {
		t.Errorf("%+v", r)
	}
	// A log without any sign request explains nothing, with or without a hash.
	wantOutcome(t, report(t, []Signature{s}, Options{}, strings.ReplaceAll(log, "/sign/", "/verify/")), "unexplained")
}

func TestAnotherSaltIsDoubtAndNoFinding(t *testing.T) {
	s := sig("a")
	s.RequestID = "1"
	r := report(t, []Signature{s}, Options{Hash: Salt("another")}, call("1", "k", logged(s.value(1))))
	wantOutcome(t, r, "undecided")
	if r.Log.Foreign != 1 || r.Signatures[0].Status != Hinted {
		t.Errorf("%+v", r)
	}
}

func TestRequestsWithoutAnAnswer(t *testing.T) {
	whole := call("1", "k", logged("x"))
	request, response, _ := strings.Cut(whole, "\n")
	request += "\n"
	r := report(t, nil, withSalt, request)
	wantOutcome(t, r, "undecided")
	if len(r.Unanswered) != 1 || r.Unanswered[0].RequestID != "1" {
		t.Errorf("%+v", r)
	}
	// A signature that is not found may be the one that is missing.
	if r := report(t, []Signature{sig("a")}, withSalt, request); r.Signatures[0].Status != Undecided {
		t.Errorf("%+v", r)
	}
	for _, order := range [][]string{{request, response}, {response, request}} {
		if r := report(t, nil, withSalt, order...); len(r.Unanswered) != 0 || len(r.Unexplained) != 1 {
			t.Errorf("%+v", r)
		}
	}
	// A refused request was never answered with a signature.
	refused := strings.Replace(request, `,"request":`, `,"error":"permission denied","request":`, 1)
	wantOutcome(t, report(t, nil, withSalt, refused), "explained")
	// A wrapped answer hides what was made.
	wrapped := strings.Replace(line("response", "2", "k", "{}"), `"data":{}`, `"wrap_info":{"ttl":60}`, 1)
	wantOutcome(t, report(t, nil, withSalt, wrapped), "undecided")
	// Of other keys nothing is asked.
	o := withSalt
	o.Keys = []Key{{Mount: "transit", Name: "other"}}
	wantOutcome(t, report(t, nil, o, request, wrapped, call("3", "k", logged("y"))), "explained")
}

func TestOtherEnginesPathsAreNotOurs(t *testing.T) {
	log := call("1", "k", logged("x"))
	for _, engine := range []string{"pki", "ssh"} {
		other := strings.NewReplacer(`"mount_type":"transit"`, `"mount_type":"`+engine+`"`, "transit/", engine+"/").Replace(log)
		wantOutcome(t, report(t, nil, withSalt, other), "explained")
	}
	for mount, path := range map[string]string{
		"a/sign/transit/": "a/sign/transit/sign/k", "team/transit/": "team/transit/sign/k/sha2-512", "": "some/where/sign/k",
	} {
		r := report(t, nil, withSalt, strings.NewReplacer(`"mount_point":"transit/"`, `"mount_point":"`+mount+`"`, "transit/sign/k", path).Replace(log))
		if len(r.Unexplained) != 1 || r.Unexplained[0].Key != strings.TrimSuffix(strings.Split(path, "sign/k")[0], "/")+"/k" {
			t.Errorf("%s: %+v", path, r.Unexplained)
		}
	}
}

func TestLinesThatCannotBeRead(t *testing.T) {
	good := call("1", "k", logged(sig("a").value(1)))
	broken := strings.Replace(line("response", "2", "k", "{}"), `"data":{}`, `"data":{"signature":7}`, 1)
	for name, log := range map[string]string{
		"not JSON":   good + `{"path":"transit/sign/k"` + "\n",
		"wrong type": good + broken,
	} {
		r := report(t, []Signature{sig("a")}, withSalt, log)
		if r.Outcome != "undecided" || r.Log.Malformed != 1 {
			t.Errorf("%s: %+v", name, r)
		}
	}
	// The last line is still being written.
	wantOutcome(t, report(t, []Signature{sig("a")}, withSalt, good+good[:300]), "explained")
	// Prefixes, Windows line ends and blank lines are none of an audit's business.
	wantOutcome(t, report(t, []Signature{sig("a")}, withSalt, "@cee: "+strings.ReplaceAll(good, "\n", "\r\n\r\n@cee: ")), "explained")
}

func TestLongLinesAreLeftOutAndCounted(t *testing.T) {
	good := call("1", "k", logged(sig("a").value(1)))
	o := withSalt
	o.maxLine = 2000
	for _, size := range []int{2001, 256 << 10, 300 << 10, 3 << 20} {
		long := `{"type":"request","x":"` + strings.Repeat("y", size) + `"}`
		for name, log := range map[string]string{"middle": good[:strings.Index(good, "\n")+1] + long + "\n" + good[strings.Index(good, "\n")+1:], "end": good + long} {
			r := report(t, []Signature{sig("a")}, o, log)
			if r.Outcome != "undecided" || r.Log.LongLines != 1 || r.Signatures[0].Status != Proven {
				t.Errorf("%d at the %s: %+v", size, name, r)
			}
		}
	}
}

// endless repeats one text.
type endless struct {
	text string
	left int
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.text[e.at:])
	if e.at += n; e.at == len(e.text) {
		e.at, e.left = 0, e.left-1
	}
	return n, nil
}

// TestMemoryDoesNotGrowWithTheLog reads 16 MiB of unexplained sign requests.
func TestMemoryDoesNotGrowWithTheLog(t *testing.T) {
	o := withSalt
	o.MaxList = 100
	m, err := New(t.Context(), []Signature{sig("a")}, o)
	if err != nil {
		t.Fatal(err)
	}
	one := call("1", "k", logged("x"))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	n := (16 << 20) / len(one)
	if err := m.Read(t.Context(), "log", &endless{text: one, left: n}); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("%d bytes are held after the log", grown)
	}
	r, err := m.Report(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Log.SignRequests != n || r.Log.Unlisted != n-100 || r.Outcome != "unexplained" || r.Signatures[0].Status != Undecided {
		t.Errorf("%d requests, %d unlisted, %s: %+v", r.Log.SignRequests, r.Log.Unlisted, r.Outcome, r.Signatures)
	}
}

func TestARequestThatIsRepeatedIsNotKeptForEver(t *testing.T) {
	var log strings.Builder
	for i := range 3 * maxEvents {
		log.WriteString(call(fmt.Sprint(i), "k", logged(sig("a").value(1))))
	}
	r := report(t, []Signature{sig("a")}, withSalt, log.String())
	wantOutcome(t, r, "explained")
	if e := r.Signatures[0]; e.Event.RequestID != "0" || !strings.Contains(e.Reason, "100 requests or more") {
		t.Errorf("%+v", e)
	}
}

func TestCompressedLogs(t *testing.T) {
	log := call("1", "k", logged(sig("a").value(1)))
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(log))
	_ = z.Close()
	packed := b.String()
	wantOutcome(t, report(t, []Signature{sig("a")}, withSalt, packed+packed), "explained") // appended files

	for name, log := range map[string]string{
		"cut": packed[:len(packed)-10], "zstd": "\x28\xb5\x2f\xfd....", "jsonx": "<json:object name=\"auth\">\n", "other JSON": "{}\n",
	} {
		m, err := New(t.Context(), nil, withSalt)
		if err != nil {
			t.Fatal(err)
		}
		var bad *LogError
		if err := m.Read(t.Context(), name, strings.NewReader(log)); !errors.As(err, &bad) || bad.Log != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	wantOutcome(t, report(t, nil, withSalt, ""), "explained") // freshly rotated
}

func TestReadersThatFailOrDribble(t *testing.T) {
	log := call("1", "k", logged(sig("a").value(1)))
	m, err := New(t.Context(), []Signature{sig("a")}, withSalt)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Read(t.Context(), "slow", iotest.OneByteReader(strings.NewReader(log))); err != nil {
		t.Fatal(err)
	}
	var bad *LogError
	failing := io.MultiReader(strings.NewReader(log), iotest.ErrReader(iotest.ErrTimeout))
	if err := m.Read(t.Context(), "broken", failing); !errors.As(err, &bad) || !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("%v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := m.Read(ended, "ended", strings.NewReader(log)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestHashersErrorsAreReturned(t *testing.T) {
	refuse := errors.New("refused")
	_, err := New(t.Context(), nil, Options{Hash: func(context.Context, string) (string, error) { return "", refuse }})
	if !errors.Is(err, refuse) {
		t.Errorf("%v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(call("1", "k", logged(sig("a").value(1)))))
	f.Add([]byte(line("request", "1", "k", "")))
	f.Add([]byte{0x1f, 0x8b})
	f.Fuzz(func(t *testing.T, log []byte) {
		m, err := New(t.Context(), []Signature{sig("a")}, withSalt)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.Read(t.Context(), "fuzz", bytes.NewReader(log)); err != nil {
			return
		}
		r, err := m.Report(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		// Whoever does not know the salt cannot write an entry that proves anything.
		if r.Signatures[0].Status == Proven && !bytes.Contains(log, []byte(logged(sig("a").value(1)))) && !bytes.Contains(log, []byte("vault:v")) && log[0] != 0x1f {
			t.Errorf("proven by %q", log)
		}
	})
}
