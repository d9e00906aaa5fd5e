// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command bench measures aegis-oci beside cosign, notation, oras and modctl: time and
// peak memory of signing, verifying, pushing and pulling, on servers of its own. scripts/bench.sh
// builds what it needs and runs it; docs/benchmarks.md holds what it has printed.
//
// All data is in one directory, on a tmpfs by default, which is removed at the
// end, also after SIGINT and SIGTERM.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// bench is what the measurements share.
type bench struct {
	bin  string // directory with aegis-oci and the servers; tools/ below it
	dir  string // everything written goes here
	home string

	vault        vault
	olareg       string // host:port; has the referrers API, keeps data in memory
	distribution string // host:port; has no referrers API, keeps data in storage
	storage      string
	pushes       int // models pushed to be signed

	tree string // the source
	disk string // a directory that is on a disk
	full bool
	// How often things are run, and how large they are.
	verifies, transfers, onDisk, farRuns, throttledRuns int
	throttledSize, sparseSize                           int64
	verdicts                                            []verdict
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == launchFlag {
		os.Exit(launch(os.Args[2:]))
	}
	// SIGPIPE would leave the data behind when the reader of the tables goes.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

// aCase is one thing that can be measured.
type aCase struct {
	name, about string
	run         func(*bench, context.Context) error
}

// cases are in the order in which they run.
var cases = []aCase{
	{"pull", "pull 3 GiB, tmpfs and disk, beside oras and modctl", (*bench).pull},
	{"tars", "pull 3 GiB in uncompressed tars beside modctl", (*bench).tars},
	{"push", "push 3 GiB, signed too, and push it again", (*bench).push},
	{"throttled", "pull, each connection held to 64 MiB/s", (*bench).throttled},
	{"faults", "pull with cut and refused answers", (*bench).faults},
	{"killed", "kill pulls and run them again", (*bench).killed},
	{"verifydir", "verify --dir beside sha256sum and openssl", (*bench).verifyDir},
	{"memory", "peak memory by size and layers, beside oras", (*bench).memory},
	{"overhead", "what verifying adds to a pull", (*bench).overhead},
	{"distance", "the same at 50 ms round trip, beside cosign (root)", (*bench).distance},
	{"crowd", "20 pulls into one directory at once", (*bench).crowd},
	{"sparse", "push a model larger than the memory", (*bench).sparse},
	{"verify", "verify a signed reference beside cosign", (*bench).verify},
	{"sign", "sign a reference beside cosign and notation", (*bench).sign},
	{"candidates", "verify among many signatures", (*bench).candidates},
}

func caseNames() string {
	var names []string
	for _, c := range cases {
		names = append(names, c.name)
	}
	return strings.Join(names, ",")
}

func run(ctx context.Context) error {
	b := &bench{}
	bin := flag.String("bin", "bin", "directory of the programs")
	tree := flag.String("tree", ".", "directory of the source, for the case that is a test")
	tmp := flag.String("tmp", "/dev/shm", "directory for the data, best a tmpfs: 8 GiB are used at most")
	flag.StringVar(&b.disk, "disk", os.TempDir(), "directory on a disk")
	only := flag.String("only", caseNames(), "what to measure")
	flag.BoolVar(&b.full, "full", false, "larger models and more runs: about an hour, and 17 GiB of the disk")
	keep := flag.Bool("keep-memory", true, "use up to 8 GiB of memory once before, and on a virtual machine keep what is free from its host")
	flag.Parse()
	b.setSizes()

	var err error
	if b.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	if b.tree, err = filepath.Abs(*tree); err != nil {
		return err
	}
	if *keep {
		release, err := keepMemory(ctx)
		defer release()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			fmt.Println("free memory is not kept from a host:", err)
		}
	}
	if b.dir, err = os.MkdirTemp(*tmp, "aegis-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	b.home, b.storage = filepath.Join(b.dir, "home"), filepath.Join(b.dir, "registry")
	stop, err := b.startServers(ctx)
	defer stop()
	if err != nil {
		return err
	}
	if err := b.describe(ctx); err != nil {
		return err
	}
	defer b.printVerdicts()
	var failed error
	for name := range strings.SplitSeq(*only, ",") {
		i := slices.IndexFunc(cases, func(c aCase) bool { return c.name == name })
		if i < 0 {
			return fmt.Errorf("-only %s: not one of %s", name, caseNames())
		}
		heading(cases[i].about)
		if err := cases[i].run(b, ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			// The others are worth measuring all the same.
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err), b.emptyRegistry())
			b.judge(verdict{what: cases[i].about, figure: "-", met: "not measured: an error, see below"})
		}
	}
	return failed
}

// setSizes sets how much and how often is measured.
func (b *bench) setSizes() {
	b.verifies, b.transfers, b.onDisk, b.farRuns = 20, 5, 5, 5
	b.throttledSize, b.throttledRuns, b.sparseSize = 768<<20, 1, 8e9
	if b.full {
		b.verifies, b.transfers, b.onDisk, b.farRuns = 50, 9, 9, 15
		b.throttledSize, b.throttledRuns, b.sparseSize = 2<<30, 5, 40e9
	}
}

// describe prints what ran where.
func (b *bench) describe(ctx context.Context) error {
	cpu, err := cpuModel()
	if err != nil {
		return err
	}
	fmt.Printf("%s; load average at the start %s\n", cpu, load())
	for _, v := range [][]string{{"aegis-oci", "version"}, {"tools/cosign", "version"}, {"tools/notation", "version"}, {"tools/oras", "version"}, {"tools/modctl", "version"}} {
		out, err := b.output(ctx, v[0], v[1:]...)
		if err != nil {
			return err
		}
		name := filepath.Base(v[0])
		fmt.Printf("%s %s\n", name, strings.TrimPrefix(versionLine(out), name+" "))
	}
	return nil
}

// versionLine picks the line that names the version.
func versionLine(out string) string {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(strings.ToLower(fields[0]), "gitversion") {
			return fields[1]
		}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
	return strings.Join(strings.Fields(strings.TrimPrefix(first, "Version:")), " ")
}

func cpuModel() (string, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", err
	}
	cores, model := 0, ""
	for line := range strings.Lines(string(info)) {
		name, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(name) {
		case "processor":
			cores++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	if cores == 0 {
		return "", errors.New("/proc/cpuinfo names no processor")
	}
	return fmt.Sprintf("%d cores, %s", cores, model), nil
}
