// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var updatePage = flag.Bool("update-page", false, "write what TestMatrix finds into docs/interop.md")

// drawn is what TestMatrix leaves to print when all tests have run.
var drawn string

func TestMain(m *testing.M) {
	code := m.Run()
	fmt.Print(drawn)
	os.Exit(code)
}

const (
	tableBegins = "<!-- begin: written by scripts/interop.sh -run TestMatrix -update-page -->\n"
	tableEnds   = "<!-- end -->\n"
)

// columnsPerKey are the servers times the registries: a cell of the table stands
// for so many runs.
const columnsPerKey = 4

// holdThePage draws the table and compares it with docs/interop.md. A run that
// was narrowed by -run has no whole table, and is compared with nothing.
func holdThePage(t *testing.T) {
	columns, unmet := map[[3]string]bool{}, []string{}
	for at := range matrix.cells {
		columns[[3]string{at.server, at.registry, at.key}] = true
	}
	if len(columns) < columnsPerKey*len(matrixKeys) {
		t.Logf("%d of %d columns were run: the page is not looked at", len(columns), columnsPerKey*len(matrixKeys))
		return
	}
	for _, e := range expectations {
		if !matrix.met[e] {
			unmet = append(unmet, e.why)
		}
	}
	if len(unmet) > 0 {
		t.Errorf("no cell is of these expectations:\n%s", strings.Join(unmet, "\n"))
	}
	table := drawTable()
	drawn = fmt.Sprintf("\n%s\n%d cells were run.\n", table, len(matrix.cells))
	file := filepath.Join("..", "..", "docs", "interop.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), tableBegins)
	was, after, ended := strings.Cut(rest, tableEnds)
	switch {
	case !found || !ended:
		t.Fatalf("%s has no place for the table", file)
	case was == table:
	case *updatePage && !t.Failed():
		write(t, file, []byte(before+tableBegins+table+tableEnds+after))
	default:
		t.Errorf("%s has another table; -update-page writes this one", file)
	}
}

// drawTable has a line for each pair of signer and verifier, a column for each
// type of key, and the reasons below.
func drawTable() string {
	var b strings.Builder
	var notes []string
	fmt.Fprintf(&b, "| signed by | verified by | %s |\n|---|---|%s\n", strings.Join(matrixKeys, " | "), strings.Repeat("---|", len(matrixKeys)))
	for _, s := range signers {
		line(&b, &notes, s.name, "")
		for _, v := range verifiers {
			line(&b, &notes, s.name, v.name)
		}
	}
	b.WriteString("\n")
	for i, note := range notes {
		fmt.Fprintf(&b, "%d. %s\n", i+1, note)
	}
	return b.String()
}

func line(b *strings.Builder, notes *[]string, signed, verified string) {
	if verified == "" {
		fmt.Fprintf(b, "| **%s** | *signing* |", signed)
	} else {
		fmt.Fprintf(b, "| | %s |", verified)
	}
	for _, key := range matrixKeys {
		fmt.Fprintf(b, " %s |", text(notes, cell{signed: signed, verified: verified, key: key}))
	}
	b.WriteString("\n")
}

// text sums up the cells of all servers and registries: yes, no with its reason's
// number, or how many of each.
func text(notes *[]string, at cell) string {
	yes, ran, why := 0, 0, ""
	for _, at.server = range []string{"Vault", "OpenBao"} {
		for _, at.registry = range []string{"referrers API", "tag fallback"} {
			got, found := matrix.cells[at]
			if !found {
				continue
			}
			ran++
			if got.ok {
				yes++
			} else {
				why = got.note
			}
		}
	}
	switch {
	case ran == 0:
		return "-" // it was not signed
	case yes == columnsPerKey:
		return "yes"
	case yes > 0 || ran < columnsPerKey:
		return fmt.Sprintf("%d of %d of %d", yes, ran, columnsPerKey)
	}
	if !slices.Contains(*notes, why) {
		*notes = append(*notes, why)
	}
	return fmt.Sprintf("no [%d]", slices.Index(*notes, why)+1)
}
