// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// verdict is a line of the last table: one case, and how it stands to its aim.
type verdict struct {
	what, ours, beside, figure, aim string
	met                             string // yes, no, or why there is no answer
}

func yesNo(met bool) string {
	if met {
		return "yes"
	}
	return "**no**"
}

func (b *bench) judge(v verdict) { b.verdicts = append(b.verdicts, v) }

// judgeRatio judges the time of the first row in relation to the fastest of the
// others: at most limit.
func (b *bench) judgeRatio(what string, rows []row, limit float64) {
	ours, best := median(rows[0].samples), fastest(rows[1:])
	ratio := ours.Seconds() / median(best.samples).Seconds()
	b.judge(verdict{
		what: what, ours: seconds(ours), beside: best.name + " " + seconds(median(best.samples)),
		figure: fmt.Sprintf("%.2f", ratio), aim: fmt.Sprintf("<= %.2f", limit), met: yesNo(ratio <= limit),
	})
}

func fastest(rows []row) row {
	best := rows[0]
	for _, r := range rows[1:] {
		if median(r.samples) < median(best.samples) {
			best = r
		}
	}
	return best
}

// printVerdicts prints what was measured, in the order of the cases.
func (b *bench) printVerdicts() {
	if len(b.verdicts) == 0 {
		return
	}
	fmt.Printf("\nAll cases; load average at the end %s\n\n", load())
	fmt.Printf("| case | aegis-oci | beside | figure | aim | met |\n|---|---|---|---|---|---|\n")
	for _, v := range b.verdicts {
		fmt.Printf("| %s | %s | %s | %s | %s | %s |\n", v.what, v.ours, orDash(v.beside), v.figure, orDash(v.aim), v.met)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// load is the load average of 1, 5 and 15 minutes.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(text))[:3], " ")
}

// heading begins the part of one case.
func heading(name string) {
	fmt.Printf("\n### %s (%s, load average %s)\n", name, time.Now().Format(time.TimeOnly), load())
}
