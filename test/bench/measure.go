// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is one run of a program.
type sample struct {
	wall time.Duration
	peak int64         // of resident memory, in bytes
	cpu  time.Duration // user and system
}

// and is the sample of two programs, one after the other.
func (s sample) and(next sample) sample {
	return sample{wall: s.wall + next.wall, peak: max(s.peak, next.peak), cpu: s.cpu + next.cpu}
}

// command prepares a program of bin with an environment of its own.
func (b *bench) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if !filepath.IsAbs(program) {
		program = filepath.Join(b.bin, program)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir = b.dir
	token := b.vault.token
	if filepath.Base(program) == "cosign" {
		token = b.vault.root // it wants to read the key before it signs
	}
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + b.home, "TMPDIR=" + b.dir,
		"VAULT_ADDR=" + b.vault.addr, "VAULT_TOKEN=" + token,
	}
	return cmd
}

// measure runs a program, in dir if that is not empty, that has to succeed.
func (b *bench) measure(ctx context.Context, dir, program string, args ...string) (sample, error) {
	return b.measureIn(ctx, dir, nil, program, args...)
}

// measureIn is measure with more in the environment.
func (b *bench) measureIn(ctx context.Context, dir string, env []string, program string, args ...string) (sample, error) {
	cmd := b.command(ctx, program, args...)
	cmd.Env = append(cmd.Env, env...)
	if dir != "" {
		cmd.Dir = dir
	}
	return runMeasured(cmd, program+" "+strings.Join(args, " "))
}

// runMeasured measures cmd, which has to succeed.
func runMeasured(cmd *exec.Cmd, about string) (sample, error) {
	result, err := viaLauncher(cmd)
	if err != nil {
		return sample{}, err
	}
	var stderr head
	cmd.Stderr = &stderr
	runErr := cmd.Run()
	got, err := result()
	if err != nil || runErr != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", about, errors.Join(err, runErr), stderr)
	}
	return got, nil
}

// head keeps the beginning of what a program says.
type head []byte

func (t *head) Write(p []byte) (int, error) {
	*t = append(*t, p[:min(len(p), 8<<10-len(*t))]...)
	return len(p), nil
}

// output runs a program and returns its stdout.
func (b *bench) output(ctx context.Context, program string, args ...string) (string, error) {
	out, err := b.command(ctx, program, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return string(out), nil
}

func median(samples []sample) time.Duration {
	walls := []time.Duration{}
	for _, s := range samples {
		walls = append(walls, s.wall)
	}
	slices.Sort(walls)
	middle := len(walls) / 2
	if len(walls)%2 == 0 {
		return (walls[middle-1] + walls[middle]) / 2
	}
	return walls[middle]
}

// row is a line of a table: what ran, and how often.
type row struct {
	name    string
	samples []sample
}

// table prints the rows with their time in relation to the one named base.
func table(title string, rows []row, base string) {
	var reference time.Duration
	for _, r := range rows {
		if r.name == base {
			reference = median(r.samples)
		}
	}
	fmt.Printf("\n%s\n\n", title)
	fmt.Printf("| | median | least | most | CPU | peak memory | time beside %s |\n|---|---|---|---|---|---|---|\n", base)
	for _, r := range rows {
		least, most, peak := time.Duration(math.MaxInt64), time.Duration(0), int64(0)
		var cpu time.Duration
		for _, s := range r.samples {
			least, most, peak, cpu = min(least, s.wall), max(most, s.wall), max(peak, s.peak), cpu+s.cpu
		}
		fmt.Printf("| %s | %s | %s | %s | %s | %s | %.2f |\n", r.name, seconds(median(r.samples)), seconds(least), seconds(most),
			seconds(cpu/time.Duration(len(r.samples))), mib(peak), median(r.samples).Seconds()/reference.Seconds())
	}
}

func seconds(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.2f s", d.Seconds())
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }
