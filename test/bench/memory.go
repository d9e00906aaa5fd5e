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
	"syscall"
	"time"
)

// peakLimit is the aim for the resident set of a push or a pull.
const peakLimit = 96 << 20

// shape is a model of files of equal size, each a byte longer than the one before, so
// that no two are the same blob.
type shape struct {
	name  string
	files int
	size  int64 // of a file
	more  *shape
	rate  int64 // of a connection of a pull, in bytes a second, if it is bounded
}

// total is the size of all files.
func (s *shape) total() int64 {
	if s == nil {
		return 0
	}
	return int64(s.files)*s.size + int64(s.files)*int64(s.files-1)/2 + s.more.total()
}

// memory shows the peak of a signed push and a verified pull for models of growing
// size and for growing numbers of layers, beside oras.
func (b *bench) memory(ctx context.Context) error {
	s, err := newSimulated()
	if err != nil {
		return err
	}
	defer s.close()
	shapes := []shape{{name: "256 MiB, 4 layers", files: 4, size: 64 << 20}, {name: "1 GiB, 1 layer", files: 1, size: 1 << 30}, {name: "4 GiB, 4 layers", files: 4, size: 1 << 30}}
	if b.full {
		shapes = append(shapes, shape{name: "16 GiB, 4 layers", files: 4, size: 4 << 30})
	}
	shapes = append(shapes, shape{name: "1,000 layers of 64 KiB", files: 1000, size: 64 << 10}, shape{name: "5,000 layers of 8 KiB", files: 5000, size: 8 << 10},
		// Large files over slow connections fill the memory that is left.
		shape{name: "1 layer of 1 GiB, 64 MiB/s", files: 1, size: 1 << 30, rate: 64 << 20},
		shape{name: "8 layers of 96 MiB, 16 MiB/s", files: 8, size: 96 << 20, rate: 16 << 20},
		shape{name: "4,990 layers of 8 KiB and 8 of 96 MiB, 16 MiB/s", files: 4990, size: 8 << 10, rate: 16 << 20, more: &shape{files: 8, size: 96 << 20}})
	fmt.Printf("\n| model | push --sign | pull --verify | oras pull |\n|---|---|---|---|\n")
	var least, most int64
	for _, shape := range shapes {
		push, pull, oras, err := b.memoryOf(ctx, s, shape)
		if err != nil {
			return fmt.Errorf("%s: %w", shape.name, err)
		}
		fmt.Printf("| %s | %s | %s | %s |\n", shape.name, mib(push), mib(pull), mib(oras))
		for _, peak := range []int64{push, pull} {
			if least == 0 || peak < least {
				least = peak
			}
			most = max(most, peak)
		}
	}
	b.judge(verdict{what: fmt.Sprintf("peak memory, %s to %s", shapes[0].name, shapes[len(shapes)-1].name),
		ours: mib(least) + " to " + mib(most), figure: mib(most), aim: "flat, <= 96 MiB", met: yesNo(most <= peakLimit)})
	return nil
}

// memoryOf measures one shape. The model is a sparse file, which takes no room.
func (b *bench) memoryOf(ctx context.Context, s *simulated, shape shape) (push, pull, oras int64, err error) {
	dir, room := filepath.Join(b.dir, "model"), b.dir
	want := shape.total()
	if want > 5<<30 {
		room = b.disk
	}
	out, err := os.MkdirTemp(room, "aegis-bench-")
	if err != nil {
		return 0, 0, 0, err
	}
	defer os.RemoveAll(out)
	defer os.RemoveAll(dir)
	if err := sparseFiles(dir, shape); err != nil {
		return 0, 0, 0, err
	}
	ref := fmt.Sprintf("%s/bench/memory:%d-%d", s.addr, shape.files, want)
	pushed, err := b.measure(ctx, "", "aegis-oci", b.pushSigned(ref, dir)...)
	if err != nil {
		return 0, 0, 0, err
	}
	if shape.rate > 0 {
		line, err := newSlowLine(s.addr, shape.rate)
		if err != nil {
			return 0, 0, 0, err
		}
		defer line.close()
		ref = line.addr() + strings.TrimPrefix(ref, s.addr)
	}
	rows, err := b.inTurn(ctx, 1, false, b.pulls(ref, filepath.Join(out, "m"), want)[:2])
	if err != nil {
		return 0, 0, 0, err
	}
	return pushed.peak, rows[0].samples[0].peak, rows[1].samples[0].peak, nil
}

// sparseFiles makes the files of shape, without content.
func sparseFiles(dir string, shape shape) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if shape.more != nil {
		if err := sparseFiles(filepath.Join(dir, "more"), *shape.more); err != nil {
			return err
		}
	}
	for i := range shape.files {
		f, err := os.Create(filepath.Join(dir, fileName(i)))
		if err != nil {
			return err
		}
		if err := errors.Join(f.Truncate(shape.size+int64(i)), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// sparse pushes a model that is larger than the machine's memory and looks at what
// that leaves on the disk.
func (b *bench) sparse(ctx context.Context) error {
	s, err := newSimulated()
	if err != nil {
		return err
	}
	defer s.close()
	dir, err := os.MkdirTemp(b.disk, "aegis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	model := shape{files: 1, size: b.sparseSize}
	if err := sparseFiles(filepath.Join(dir, "model"), model); err != nil {
		return err
	}
	ended, stop := context.WithCancel(ctx)
	defer stop()
	took := watchRoom(ended, dir, b.dir)
	got, err := b.measure(ctx, dir, "aegis-oci", b.pushSigned(s.addr+"/bench/sparse:v1", filepath.Join(dir, "model"))...)
	stop()
	room := <-took
	if err != nil {
		return err
	}
	if s.discarded != model.size {
		return fmt.Errorf("the registry was sent %d bytes, not %d", s.discarded, model.size)
	}
	b.judge(verdict{what: fmt.Sprintf("push --sign a sparse model of %d GB, registry simulated", model.size/1e9),
		ours: fmt.Sprintf("%s, peak memory %s", seconds(got.wall), mib(got.peak)), figure: fmt.Sprintf("%s more on the disks at most", mib(room)),
		aim: "flat memory, no second copy", met: yesNo(got.peak <= peakLimit && room < 64<<20)})
	return nil
}

// watchRoom looks at how much is stored in the directories until ctx ends, and then
// yields by how much it grew at most.
func watchRoom(ctx context.Context, dirs ...string) <-chan int64 {
	most, before := make(chan int64, 1), stored(dirs)
	go func() {
		var grown int64
		for ctx.Err() == nil {
			grown = max(grown, stored(dirs)-before)
			waitFor(ctx, 200*time.Millisecond)
		}
		most <- grown
	}()
	return most
}

// stored is the number of bytes in blocks of all files below the directories.
func stored(dirs []string) int64 {
	var n int64
	for _, dir := range dirs {
		// A file that goes meanwhile is not counted.
		_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if info, err := d.Info(); err == nil {
				n += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return nil
		})
	}
	return n
}
