// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// overhead measures what verifying adds to the pull of a small model.
func (b *bench) overhead(ctx context.Context) error {
	dir, out := filepath.Join(b.dir, "small"), filepath.Join(b.dir, "out")
	defer os.RemoveAll(out)
	if err := makeModel(dir, 1<<20); err != nil {
		return err
	}
	ref := b.olareg + "/bench/overhead:v1"
	if _, err := b.output(ctx, "aegis-oci", b.pushSigned(ref, dir)...); err != nil {
		return err
	}
	rows, err := b.interleave(ctx, b.verifies, b.smallPulls(ref, out))
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Pull a small model from olareg (%d runs each)", b.verifies), rows, "pull --verify=false")
	b.judgeOverhead("verified pull minus --verify=false, public key", rows[1], rows[0], 15*time.Millisecond)
	b.judgeOverhead("verified pull minus --verify=false, Vault", rows[2], rows[0], 60*time.Millisecond)
	return nil
}

// smallPulls are one pull unverified, with a public key and with Vault.
func (b *bench) smallPulls(ref, out string) []contender {
	fresh := func() error { return os.RemoveAll(out) }
	pull := func(args ...string) []string { return append(append([]string{"pull", "-q"}, args...), "-o", out, ref) }
	return []contender{
		{name: "pull --verify=false", program: "aegis-oci", args: pull("--verify=false"), before: fresh},
		{name: "pull --key FILE", program: "aegis-oci", args: pull("--key", b.vault.publicKey), before: fresh},
		{name: "pull --key hashivault://", program: "aegis-oci", args: pull("--key", keyURI), before: fresh},
	}
}

func (b *bench) judgeOverhead(what string, verified, plain row, limit time.Duration) {
	// They ran in turn: what slowed one slowed the one beside it.
	pairs := make([]sample, len(verified.samples))
	for i, s := range verified.samples {
		pairs[i].wall = s.wall - plain.samples[i].wall
	}
	more := median(pairs)
	b.judge(verdict{what: what, ours: seconds(median(verified.samples)), beside: seconds(median(plain.samples)),
		figure: fmt.Sprintf("%.1f ms more", float64(more)/float64(time.Millisecond)), aim: "<= " + seconds(limit), met: yesNo(more <= limit)})
}

// roundTrip is how long the far site's answers take at least.
const roundTrip = 50 * time.Millisecond

// distance measures verifying where the registry and Vault are far, behind TLS and a
// CONNECT proxy, beside cosign.
func (b *bench) distance(ctx context.Context) error {
	const what = "at 50 ms round trip, TLS, CONNECT proxy, private CA"
	if os.Geteuid() != 0 {
		b.judge(verdict{what: what, figure: "-", met: "not measured: a network namespace needs root"})
		return nil
	}
	l, err := newLink(ctx)
	if err != nil {
		b.judge(verdict{what: what, figure: "-", met: "not measured: " + err.Error()})
		return nil
	}
	defer l.close()
	f, err := b.newFar()
	if err != nil {
		return err
	}
	defer f.close()
	dir, out := filepath.Join(b.dir, "small"), filepath.Join(b.dir, "out")
	defer os.RemoveAll(out)
	if err := makeModel(dir, 1<<20); err != nil {
		return err
	}
	if _, err := b.output(ctx, "aegis-oci", b.pushSigned(b.olareg+"/bench/far:v1", dir)...); err != nil {
		return err
	}
	contenders := b.farContenders(l, f, farRegistry+"/bench/far:v1", out)
	rows, asked, err := b.measureFar(ctx, l, f, contenders)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("%s (%d runs each)", what, b.farRuns), rows, "cosign verify --key FILE")
	fmt.Printf("\n| | requests | connections | round trips in a row |\n|---|---|---|---|\n")
	for i, r := range rows {
		fmt.Printf("| %s | %d | %d | %.1f |\n", r.name, asked[i].requests, asked[i].connections, asked[i].trips)
	}
	b.judgeOverhead("pull --key FILE minus --verify=false "+what, rows[1], rows[0], 600*time.Millisecond)
	b.judgeOverhead("pull --key hashivault:// minus --verify=false "+what, rows[2], rows[0], 600*time.Millisecond)
	ours, cosign := asked[3], asked[4]
	b.judge(verdict{what: "verify --key FILE " + what,
		ours:   fmt.Sprintf("%s, %d requests, %.1f round trips in a row", seconds(median(rows[3].samples)), ours.requests, ours.trips),
		beside: fmt.Sprintf("cosign %s, %d requests, %.1f", seconds(median(rows[4].samples)), cosign.requests, cosign.trips),
		figure: fmt.Sprintf("%.2f", median(rows[3].samples).Seconds()/median(rows[4].samples).Seconds()),
		aim:    "no more round trips, <= 600 ms",
		met:    yesNo(ours.trips <= cosign.trips+0.25 && median(rows[3].samples) <= 600*time.Millisecond)})
	return nil
}

// farContenders run in the namespace.
func (b *bench) farContenders(l *link, f *far, ref, out string) []contender {
	all := append(b.smallPulls(ref, out),
		contender{name: "aegis-oci verify --key FILE", program: "aegis-oci", args: []string{"verify", "-q", "--key", b.vault.publicKey, ref}},
		contender{name: "cosign verify --key FILE", program: "tools/cosign",
			args: []string{"verify", "--key", b.vault.publicKey, "--insecure-ignore-tlog=true", ref}})
	env := []string{"HTTPS_PROXY=" + f.proxy, "SSL_CERT_FILE=" + f.caFile, "VAULT_ADDR=https://" + farVault}
	for i, c := range all {
		all[i].program = "/bin/ip"
		all[i].args = l.within(filepath.Join(b.bin, c.program), c.args...)
		all[i].env = env
	}
	return all
}

// asked is what one run of a program asked the far site.
type asked struct {
	requests, connections int64
	trips                 float64
}

// measureFar measures at the distance and without it: the difference in round trips
// is how many of them the program waits for one after the other.
func (b *bench) measureFar(ctx context.Context, l *link, f *far, contenders []contender) ([]row, []asked, error) {
	counts := make([]asked, len(contenders))
	for i := range contenders {
		fresh := contenders[i].before
		contenders[i].before = func() error {
			f.requests.Store(0)
			f.connections.Store(0)
			if fresh == nil {
				return nil
			}
			return fresh()
		}
		contenders[i].after = func() error {
			counts[i].requests, counts[i].connections = f.requests.Load(), f.connections.Load()
			return nil
		}
	}
	near, err := b.interleave(ctx, b.farRuns, contenders)
	if err != nil {
		return nil, nil, err
	}
	l.delay.Store(int64(roundTrip / 2))
	rows, err := b.interleave(ctx, b.farRuns, contenders)
	if err != nil {
		return nil, nil, err
	}
	for i := range counts {
		counts[i].trips = (median(rows[i].samples) - median(near[i].samples)).Seconds() / roundTrip.Seconds()
	}
	return rows, counts, nil
}
