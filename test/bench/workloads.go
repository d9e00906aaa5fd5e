// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// filesPerModel is how many files of equal size a model has.
const filesPerModel = 4

// contender is one way to do something, measured beside others.
type contender struct {
	name    string
	program string
	args    []string
	dir     string   // to run in; the bench's own if empty
	env     []string // beside the usual
	// then is a second program with its arguments, for what takes two.
	then []string
	// settle, unless it is nil, is measured with it.
	settle func() error
	// before and after are not measured.
	before, after func() error
}

// interleave runs all of them in turn, rounds times over, so that what slows the
// machine slows them alike; a first round is not counted.
func (b *bench) interleave(ctx context.Context, rounds int, contenders []contender) ([]row, error) {
	return b.inTurn(ctx, rounds, true, contenders)
}

// inTurn is interleave that counts the first round too, unless it is to warm up.
func (b *bench) inTurn(ctx context.Context, rounds int, warm bool, contenders []contender) ([]row, error) {
	rows := make([]row, len(contenders))
	first := 0
	if !warm {
		first = 1
	}
	for round := first; round <= rounds; round++ {
		for i, c := range contenders {
			if c.before != nil {
				if err := c.before(); err != nil {
					return nil, err
				}
			}
			got, err := b.measureIn(ctx, c.dir, c.env, c.program, c.args...)
			if err != nil {
				return nil, err
			}
			if len(c.then) > 0 {
				second, err := b.measure(ctx, "", c.then[0], c.then[1:]...)
				if err != nil {
					return nil, err
				}
				got = got.and(second)
			}
			if c.settle != nil {
				start := time.Now()
				if err := c.settle(); err != nil {
					return nil, err
				}
				got.wall += time.Since(start)
			}
			if c.after != nil {
				if err := c.after(); err != nil {
					return nil, fmt.Errorf("after %s: %w", c.name, err)
				}
			}
			rows[i].name = c.name
			if round > 0 {
				rows[i].samples = append(rows[i].samples, got)
			}
		}
	}
	return rows, nil
}

// verify measures verifying one signed reference on each registry.
func (b *bench) verify(ctx context.Context) error {
	rounds := b.verifies
	dir := filepath.Join(b.dir, "small")
	if err := makeModel(dir, 1<<20); err != nil {
		return err
	}
	for _, on := range []struct{ kind, addr string }{
		{"olareg, which has the referrers API", b.olareg},
		{"distribution, which has none", b.distribution},
	} {
		ref := on.addr + "/bench/verify:v1"
		if _, err := b.output(ctx, "aegis-oci", "push", "-q", "--sign", "--key", keyURI, "--public-key", b.vault.publicKey, ref, dir); err != nil {
			return err
		}
		rows, err := b.interleave(ctx, rounds, []contender{
			{name: "aegis-oci verify --key FILE", program: "aegis-oci", args: []string{"verify", "-q", "--key", b.vault.publicKey, ref}},
			{name: "aegis-oci verify --key hashivault://", program: "aegis-oci", args: []string{"verify", "-q", "--key", keyURI, ref}},
			{name: "cosign verify --key FILE", program: "tools/cosign", args: b.cosignVerify(ref)},
		})
		if err != nil {
			return err
		}
		table(fmt.Sprintf("Verify a signed reference on %s (%d runs each)", on.kind, rounds), rows, "cosign verify --key FILE")
	}
	return nil
}

func (b *bench) cosignVerify(ref string) []string {
	return []string{"verify", "--key", b.vault.publicKey, "--insecure-ignore-tlog=true", "--allow-http-registry", ref}
}

// emptyRegistry removes what distribution has stored, so that every push sends
// every byte.
func (b *bench) emptyRegistry() error {
	return os.RemoveAll(filepath.Join(b.storage, "docker"))
}

// checkPulled looks whether all bytes have arrived.
func (b *bench) checkPulled(out string, want int64) error {
	var got int64
	err := filepath.WalkDir(out, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".bin") {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			got += info.Size()
		}
		return err
	})
	if err == nil && got != want {
		err = fmt.Errorf("%d bytes were pulled, want %d", got, want)
	}
	return err
}

func fileName(i int) string { return fmt.Sprintf("weights-%d.bin", i) }

// makeModel writes a model of random bytes in files of equal size.
func makeModel(dir string, size int64) error {
	sizes := make([]int64, filesPerModel)
	for i := range sizes {
		sizes[i] = size / filesPerModel
	}
	return makeFiles(dir, byte(size>>20), sizes...)
}

// makeFiles writes files of random bytes, which neither compress nor repeat.
func makeFiles(dir string, seed byte, sizes ...int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i, size := range sizes {
		if err := makeFile(filepath.Join(dir, fileName(i)), rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), seed}), size); err != nil {
			return err
		}
	}
	return nil
}

func makeFile(name string, source io.Reader, size int64) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, source, size)
	return errors.Join(err, f.Close())
}

func total(sizes []int64) int64 {
	var sum int64
	for _, n := range sizes {
		sum += n
	}
	return sum
}
