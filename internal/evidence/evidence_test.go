// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func printed(t *testing.T, file string) (string, bool) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b strings.Builder
	complete, err := Print(&b, f)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), complete
}

// TestALineIsShownByEachPackageThatHasTo takes the evidence away piece by piece.
func TestALineIsShownByEachPackageThatHasTo(t *testing.T) {
	var all []item
	for _, row := range table {
		for _, from := range row.from {
			all = append(all, item{row.line, from, "TestX", "seen " + from})
		}
	}
	for without := -1; without < len(all); without++ {
		file := filepath.Join(t.TempDir(), "evidence")
		t.Setenv(Variable, file)
		t.Run("records", func(t *testing.T) {
			for i, it := range all {
				if i != without {
					Prove(t, it.From, it.Line, "seen %s", it.From)
				}
			}
		})
		text, complete := printed(t, file)
		if complete != (without < 0) {
			t.Errorf("without %d of %d: complete %v\n%s", without, len(all), complete, text)
		}
		if without >= 0 && strings.Count(text, "NOT SHOWN by test/"+all[without].From) != 1 {
			t.Errorf("without %+v:\n%s", all[without], text)
		}
	}
}

func TestEvidenceOfNoLineIsAnError(t *testing.T) {
	for _, text := range []string{`{"Line": "misspelt", "From": "acceptance"}`, `{"Line": `} {
		if complete, err := Print(&strings.Builder{}, strings.NewReader(text)); err == nil || complete {
			t.Errorf("%s: complete %v, %v", text, complete, err)
		}
	}
}
