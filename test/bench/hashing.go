// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// goTest runs one test of the tree that this program was built from.
func (b *bench) goTest(ctx context.Context, pkg, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^"+name+"$", pkg)
	cmd.Dir = b.tree
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return string(out), nil
}

// verifyDir measures checking a pulled directory beside the rate at which the
// machine hashes.
func (b *bench) verifyDir(ctx context.Context) error {
	// Files of equal size: a hash is one core's work from its first byte to its last.
	sizes := []int64{768 << 20, 768 << 20, 768 << 20, 768 << 20}
	dir, out, ref := filepath.Join(b.dir, "model"), filepath.Join(b.dir, "out"), b.distribution+"/bench/check:v1"
	defer os.RemoveAll(out)
	if err := makeFiles(dir, 4, sizes...); err != nil {
		return err
	}
	_, err := b.output(ctx, "aegis-oci", b.pushSigned(ref, dir)...)
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return err
	}
	_, err = b.output(ctx, "aegis-oci", "pull", "-q", "--key", b.vault.publicKey, "-o", out, ref)
	if err := errors.Join(err, b.emptyRegistry()); err != nil {
		return err
	}
	sums := []string{}
	for i := range sizes {
		sums = append(sums, filepath.Join(out, fileName(i)))
	}
	rate, err := b.hashRate(ctx)
	if err != nil {
		return err
	}
	rows, err := b.interleave(ctx, b.transfers, []contender{
		{name: "aegis-oci verify --dir", program: "aegis-oci", args: []string{"verify", "-q", "--dir", out, "--key", b.vault.publicKey}},
		{name: "sha256sum", program: "/usr/bin/sha256sum", args: sums},
	})
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Check 3 GiB (%d runs each); `openssl speed` of SHA-256: %.2f GB/s on each of %d cores", b.transfers, rate/1e9, runtime.NumCPU()), rows, "sha256sum")
	ours := median(rows[0].samples)
	b.judgeRatio("verify --dir 3 GiB, beside sha256sum", rows, 1)
	speed, limit := float64(total(sizes))/ours.Seconds(), rate*float64(runtime.NumCPU())
	b.judge(verdict{what: "verify --dir 3 GiB, beside openssl's rate x cores", ours: fmt.Sprintf("%.2f GB/s", speed/1e9),
		beside: fmt.Sprintf("%.2f GB/s", limit/1e9), figure: fmt.Sprintf("%.2f of it", speed/limit), aim: ">= 0.9", met: yesNo(speed >= 0.9*limit)})
	return nil
}

// hashRate is what openssl says that one core hashes, in bytes a second.
func (b *bench) hashRate(ctx context.Context) (float64, error) {
	out, err := exec.CommandContext(ctx, "openssl", "speed", "-mr", "-evp", "sha256", "-bytes", "1048576", "-seconds", "2").Output()
	if err != nil {
		return 0, fmt.Errorf("openssl speed: %w", err)
	}
	// +F:22:sha256:1753213337.60
	for line := range strings.Lines(string(out)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if fields[0] == "+F" && len(fields) > 3 {
			return strconv.ParseFloat(fields[len(fields)-1], 64)
		}
	}
	return 0, fmt.Errorf("openssl speed has not said a rate: %q", out)
}
