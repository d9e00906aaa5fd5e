// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// throttled measures pulling where each connection is slow: one file, and a model whose
// files are not of one size. The second has no aim of its own: the peers have three
// connections for it.
func (b *bench) throttled(ctx context.Context) error {
	line, err := newSlowLine(b.distribution, 64<<20)
	if err != nil {
		return err
	}
	defer line.close()
	one := fmt.Sprintf("pull %d MiB, each connection held to 64 MiB/s", b.throttledSize>>20)
	times, v, err := b.pullThrottled(ctx, one, line, b.throttledSize)
	if err != nil {
		return err
	}
	v.aim, v.met = ">= 6", yesNo(times >= 6)
	b.judge(v)
	sizes := []int64{b.throttledSize, b.throttledSize / 4, b.throttledSize / 4}
	_, v, err = b.pullThrottled(ctx, fmt.Sprintf("the same with two files of %d MiB beside it", sizes[1]>>20), line, sizes...)
	if err != nil {
		return err
	}
	v.met = "no aim"
	b.judge(v)
	return nil
}

// pullThrottled returns how many times faster than the best of the others it was.
func (b *bench) pullThrottled(ctx context.Context, title string, line *slowLine, sizes ...int64) (float64, verdict, error) {
	dir, out := filepath.Join(b.dir, "model"), filepath.Join(b.dir, "out")
	defer os.RemoveAll(out)
	if err := makeFiles(dir, 2, sizes...); err != nil {
		return 0, verdict{}, err
	}
	if err := b.moveToRegistry(ctx, "/bench/throttled:v1", dir); err != nil {
		return 0, verdict{}, err
	}
	rows, err := b.inTurn(ctx, b.throttledRuns, false, b.pulls(line.addr()+"/bench/throttled:v1", out, total(sizes)))
	if err != nil {
		return 0, verdict{}, err
	}
	table(title, rows, "oras pull")
	ours, best := median(rows[0].samples), fastest(rows[1:])
	times := median(best.samples).Seconds() / ours.Seconds()
	return times, verdict{what: title, ours: seconds(ours), beside: best.name + " " + seconds(median(best.samples)),
		figure: fmt.Sprintf("%.1f times faster", times)}, b.emptyRegistry()
}

// moveToRegistry pushes what dir has and removes dir.
func (b *bench) moveToRegistry(ctx context.Context, name, dir string) error {
	_, err := b.output(ctx, "aegis-oci", b.pushSigned(b.distribution+name, dir)...)
	return errors.Join(err, os.RemoveAll(dir))
}

// metered pushes what dir has, removes dir, and puts a meter before the registry.
func (b *bench) metered(ctx context.Context, name, dir string) (*meter, error) {
	if err := b.moveToRegistry(ctx, name, dir); err != nil {
		return nil, err
	}
	return newMeter(b.distribution)
}

// faults measures what is fetched where answers are cut and refused.
func (b *bench) faults(ctx context.Context) error {
	const files, size = 96, 8 << 20
	sizes := make([]int64, files)
	for i := range sizes {
		sizes[i] = size
	}
	dir, out := filepath.Join(b.dir, "model"), filepath.Join(b.dir, "out")
	defer os.RemoveAll(out)
	if err := makeFiles(dir, 3, sizes...); err != nil {
		return err
	}
	m, err := b.metered(ctx, "/bench/faults:v1", dir)
	if err != nil {
		return err
	}
	defer m.close()
	m.cut, m.refused = 0.05, 0.02
	fmt.Printf("\nPull %d files of 8 MiB, 5%% of the answers cut, 2%% of them 503\n\n"+
		"| | completed | bytes fetched in relation to the size, at most |\n|---|---|---|\n", files)
	const rounds = 5
	for i, c := range b.pulls(m.addr+"/bench/faults:v1", out, files*size) {
		completed, worst := 0, 0.0
		for range rounds {
			if err := c.before(); err != nil {
				return err
			}
			m.reset()
			_, err := b.measure(ctx, "", c.program, c.args...)
			if err == nil && c.after() == nil {
				completed++
			} else if ctx.Err() != nil {
				return err
			}
			worst = max(worst, float64(m.blobBytes.Load())/(files*size))
		}
		fmt.Printf("| %s | %d of %d | %.3f |\n", c.name, completed, rounds, worst)
		if i == 0 {
			b.judge(verdict{what: "pull, 5% of answers cut, 2% of them 503", ours: fmt.Sprintf("completes, %d of %d", completed, rounds),
				figure: fmt.Sprintf("%.3f of the size fetched", worst), aim: "<= 1.1", met: yesNo(completed == rounds && worst <= 1.1)})
		}
	}
	return b.emptyRegistry()
}

// crowd starts many pulls into one directory at once.
func (b *bench) crowd(ctx context.Context) error {
	const many, size = 20, 256 << 20
	dir, out := filepath.Join(b.dir, "model"), filepath.Join(b.dir, "out")
	defer os.RemoveAll(out)
	if err := makeModel(dir, size); err != nil {
		return err
	}
	m, err := b.metered(ctx, "/bench/crowd:v1", dir)
	if err != nil {
		return err
	}
	defer m.close()
	start := time.Now()
	results := make(chan error, many)
	for range many {
		go func() {
			_, err := b.measure(ctx, "", "aegis-oci", "pull", "-q", "--key", b.vault.publicKey, "-o", out, m.addr+"/bench/crowd:v1")
			results <- err
		}()
	}
	for range many {
		err = errors.Join(err, <-results)
	}
	if err := errors.Join(err, b.checkPulled(out, size)); err != nil {
		return err
	}
	// The signature's blob is fetched by each, and the end of a stream that became
	// several ranges is fetched twice; one file more would be a quarter.
	downloads := float64(m.blobBytes.Load()) / size
	b.judge(verdict{what: "20 pulls of 256 MiB into one directory at once", ours: seconds(time.Since(start)),
		figure: fmt.Sprintf("%.3f downloads", downloads), aim: "1", met: yesNo(downloads >= 1 && downloads < 1.1)})
	return b.emptyRegistry()
}

// killed runs the test that kills pulls, and reports what it says.
func (b *bench) killed(ctx context.Context) error {
	const name = "TestKilledPullsLeaveNothingWrongAndFetchLittleAgain"
	out, err := b.goTest(ctx, "./pkg/aegis", name)
	if err != nil {
		return err
	}
	_, rest, found := strings.Cut(out, "at most ")
	again, _, _ := strings.Cut(rest, " MiB were fetched again")
	var mib int
	if _, err := fmt.Sscanf(again, "%d", &mib); !found || err != nil {
		return fmt.Errorf("%s has not said how much was fetched again: %q", name, out)
	}
	b.judge(verdict{what: "kill -9 at 20 random moments, run again", ours: "no wrong or partial file under its name",
		figure: fmt.Sprintf("%d MiB fetched again at most", mib), aim: "<= 64 MiB each", met: yesNo(mib <= 64)})
	return nil
}
