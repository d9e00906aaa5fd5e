// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package display_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
)

type result struct {
	Reference string   `json:"reference"`
	Size      int64    `json:"size"`
	Tags      []string `json:"tags"`
	Empty     string   `json:"empty,omitempty"`
}

var one = result{Reference: "r@sha256:<x>&y", Size: 12_345_678_901_234, Tags: []string{"v1", "latest"}}

func text(w io.Writer) error {
	_, err := fmt.Fprintln(w, "for a person")
	return err
}

func TestPrintFormats(t *testing.T) {
	for format, want := range map[string]string{
		"text": "for a person\n",
		"json": `{
  "reference": "r@sha256:<x>&y",
  "size": 12345678901234,
  "tags": [
    "v1",
    "latest"
  ]
}
`,
		// Templates see the JSON's names, and numbers as they are.
		"go-template={{.reference}} {{.size}}{{range .tags}} {{.}}{{end}}": "r@sha256:<x>&y 12345678901234 v1 latest\n",
	} {
		var b bytes.Buffer
		p, err := display.NewPrinter(&b, format)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Print(one, text); err != nil || b.String() != want {
			t.Errorf("%s: %q, %v; want %q", format, b.String(), err, want)
		}
	}
}

func TestPrintWritesNothingWhenItFails(t *testing.T) {
	failing := errors.New("no text")
	for format, text := range map[string]func(io.Writer) error{
		"text":                                  func(w io.Writer) error { fmt.Fprint(w, "half"); return failing },
		"go-template={{.reference}} {{.Size}}":  text,
		"go-template={{.reference}} {{.empty}}": text,
		"go-template={{.reference}} {{.a.b.c}}": text,
		"go-template=x{{index .tags 7}}":        text,
	} {
		var b bytes.Buffer
		p, err := display.NewPrinter(&b, format)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Print(one, text); err == nil || b.Len() > 0 {
			t.Errorf("%s: wrote %q, error %v", format, b.String(), err)
		}
	}
}

func TestUnknownFormatsAreRefused(t *testing.T) {
	for _, format := range []string{"", "yaml", "JSON", "go-template={{", "go-template={{nosuch}}", "template"} {
		if _, err := display.NewPrinter(io.Discard, format); err == nil || !strings.Contains(err.Error(), "--format") {
			t.Errorf("%q: %v", format, err)
		}
	}
}

func TestErrorIsOneJSONObject(t *testing.T) {
	var b bytes.Buffer
	if err := display.Error(&b, "unsigned", "no <signature>", true); err != nil {
		t.Fatal(err)
	}
	var got map[string]map[string]any
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if e := got["error"]; len(got) != 1 || len(e) != 3 || e["code"] != "unsigned" || e["message"] != "no <signature>" || e["retryable"] != true {
		t.Errorf("printed %s", b.String())
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 10 << 30: "10.0 GiB", 1 << 60: "1024.0 PiB"} {
		if got := display.Bytes(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

// What is left is told of the whole stage, not of the files that were begun.
func TestLinesKnowWhatIsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var lines []string
		l := display.NewLines(func(s string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, s) }, 5*time.Second, time.Now)
		tick := func() { time.Sleep(5 * time.Second); synctest.Wait() }
		for _, stage := range []int64{400 << 20, 200 << 20} {
			l.Plan(stage)
			l.Start("a.bin", 100<<20)
			l.Add("a.bin", 50<<20)
			tick()
			l.Done("a.bin")
		}
		l.Plan(10 << 20)
		l.Start("larger than planned", 20<<20)
		tick()
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		want := []string{
			"50.0 MiB of 400.0 MiB, 10.0 MiB/s, 35s left (1 files under way)",
			"50.0 MiB of 200.0 MiB, 10.0 MiB/s, 15s left (1 files under way)",
			"0 B of 20.0 MiB, 0 B/s (1 files under way)",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("lines %q, want %q", lines, want)
		}
	})
}

func TestLinesComeEveryFewSecondsWhileSomethingIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var lines []string
		l := display.NewLines(func(s string) { mu.Lock(); defer mu.Unlock(); lines = append(lines, s) }, 5*time.Second, time.Now)
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(lines) }
		wait := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		if wait(20 * time.Second); count() != 0 {
			t.Errorf("lines about nothing: %q", lines)
		}
		l.Start("a.bin", 100<<20)
		l.Start("b.bin", 100<<20)
		l.Add("a.bin", 50<<20)
		l.Add("unknown", 50<<20)
		if wait(5 * time.Second); count() != 1 || lines[0] != "50.0 MiB of 200.0 MiB, 2.0 MiB/s, 1m15s left (2 files under way)" {
			t.Errorf("lines %q", lines)
		}
		l.Done("a.bin") // the rest of it was there already
		if wait(5 * time.Second); count() != 2 || !strings.HasPrefix(lines[1], "100.0 MiB of 200.0 MiB") || !strings.HasSuffix(lines[1], "(1 files under way)") {
			t.Errorf("lines %q", lines)
		}
		l.Done("b.bin")
		wait(20 * time.Second)
		l.Close()
		if wait(20 * time.Second); count() != 2 {
			t.Errorf("lines after the end: %q", lines[2:])
		}
	})
}
