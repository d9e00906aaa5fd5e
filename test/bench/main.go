// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command bench measures aegis-oci beside cosign, notation and oras: time and
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
}

func main() {
	// SIGPIPE would leave the data behind when the reader of the tables goes.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench: error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	bin := flag.String("bin", "bin", "directory of the programs")
	tmp := flag.String("tmp", "/dev/shm", "directory for the data, best a tmpfs: 8 GiB are used at most")
	only := flag.String("only", "verify,transfer,memory,sign,candidates", "what to measure")
	verifies := flag.Int("verifies", 20, "runs of each verification")
	transfers := flag.Int("transfers", 3, "runs of each push and pull")
	flag.Parse()

	b := &bench{}
	var err error
	if b.bin, err = filepath.Abs(*bin); err != nil {
		return err
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
	for what := range strings.SplitSeq(*only, ",") {
		switch what {
		case "verify":
			err = b.verify(ctx, *verifies)
		case "transfer":
			err = b.transfer(ctx, *transfers)
		case "memory":
			err = b.memory(ctx)
		case "sign":
			err = b.sign(ctx, *verifies)
		case "candidates":
			err = b.candidates(ctx, *verifies)
		default:
			err = fmt.Errorf("-only %s: not one of verify, transfer, memory, sign, candidates", what)
		}
		if err != nil {
			return err
		}
	}
	floor, err := peakOfSelf()
	if err != nil {
		return err
	}
	if floor > smallestPeak {
		return fmt.Errorf("this program grew to %s: the peaks of its children below that are not theirs", mib(floor))
	}
	return nil
}

// describe prints what ran where.
func (b *bench) describe(ctx context.Context) error {
	cpu, err := cpuModel()
	if err != nil {
		return err
	}
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fmt.Printf("%s; load average at the start %s\n", cpu, strings.Join(strings.Fields(string(load))[:3], " "))
	for _, v := range [][]string{{"aegis-oci", "version"}, {"tools/cosign", "version"}, {"tools/notation", "version"}, {"tools/oras", "version"}} {
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
