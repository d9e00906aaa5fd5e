// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// errorRows are the rows of docs/errors.md. A failure in a script that a row
// names, with the row's code, exit code, message and hint, is a sight of the row.
type errorRows struct {
	mu   sync.Mutex
	rows []*errorRow
}

type errorRow struct {
	cause, exit, code, script string
	// message and hint match the whole text after "error: " and "hint: "; a nil
	// hint says that there is none.
	message, hint *regexp.Regexp
	seen          bool
}

// errorTable reads the rows | cause | message | exit | code | hint | test | whose
// test is a script in dir.
func errorTable(t *testing.T, dir string) *errorRows {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	table := &errorRows{}
	for line := range strings.Lines(string(page)) {
		line = strings.ReplaceAll(strings.TrimSpace(line), `\|`, "\x00")
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 6 || strings.HasPrefix(line, "|---") || strings.TrimSpace(cells[2]) == "exit" {
			continue
		}
		for i := range cells {
			cells[i] = strings.Trim(strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|"), "`")
		}
		row := &errorRow{cause: cells[0], message: pattern(cells[1]), exit: cells[2], code: cells[3], script: cells[5]}
		if cells[4] != "" {
			row.hint = pattern(cells[4])
		}
		if _, err := os.Stat(filepath.Join(dir, row.script+".txt")); err == nil {
			table.rows = append(table.rows, row)
		}
	}
	if len(table.rows) == 0 {
		t.Errorf("docs/errors.md has no row that names a script in %s", dir)
	}
	return table
}

// pattern takes "..." for anything.
func pattern(text string) *regexp.Regexp {
	return regexp.MustCompile(`^` + strings.ReplaceAll(regexp.QuoteMeta(text), `\.\.\.`, `.*`) + `$`)
}

var (
	errorLine = regexp.MustCompile(`(?m)^aegis-oci: error: (.*)$`)
	hintLine  = regexp.MustCompile(`(?m)^aegis-oci: hint: (.*)$`)
)

// saw marks the rows that a failure is an example of.
func (e *errorRows) saw(script, exit, code, stderr string) {
	message, hint := errorLine.FindStringSubmatch(stderr), hintLine.FindStringSubmatch(stderr)
	if message == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, row := range e.rows {
		if row.script == script && row.code == code && row.exit == exit && row.message.MatchString(message[1]) &&
			(row.hint == nil) == (hint == nil) && (hint == nil || row.hint.MatchString(hint[1])) {
			row.seen = true
		}
	}
}

func (e *errorRows) allSeen(t *testing.T) {
	t.Helper()
	for _, row := range e.rows {
		if !row.seen {
			t.Errorf("docs/errors.md, %q (%s): no failure in the script %s is like that", row.cause, row.code, row.script)
		}
	}
}
