// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
)

// filesPerModel is how many files of equal size a model has.
const filesPerModel = 4

// contender is one way to do something, measured beside others.
type contender struct {
	name    string
	program string
	args    []string
	dir     string // to run in; the bench's own if empty
	// then is a second program with its arguments, for what takes two.
	then []string
	// before and after are not measured.
	before, after func() error
}

// interleave runs all of them in turn, rounds times over, so that what slows the
// machine slows them alike; a first round is not counted.
func (b *bench) interleave(ctx context.Context, rounds int, contenders []contender) ([]row, error) {
	rows := make([]row, len(contenders))
	for round := range rounds + 1 {
		for i, c := range contenders {
			if c.before != nil {
				if err := c.before(); err != nil {
					return nil, err
				}
			}
			got, err := b.measure(ctx, c.dir, c.program, c.args...)
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
func (b *bench) verify(ctx context.Context, rounds int) error {
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

// transfer measures pushing and pulling a model of 1 GiB on distribution.
func (b *bench) transfer(ctx context.Context, rounds int) error {
	dir, ref := filepath.Join(b.dir, "model"), b.distribution+"/bench/transfer:v1"
	if err := makeModel(dir, 1<<30); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := b.push(ctx, rounds, dir, ref); err != nil {
		return err
	}
	return b.pull(ctx, rounds, ref)
}

// push leaves the model signed in the registry.
func (b *bench) push(ctx context.Context, rounds int, dir, ref string) error {
	signed := []string{"push", "-q", "--format", "json", "--sign", "--key", keyURI, "--public-key", b.vault.publicKey, ref, dir}
	oras := []string{"push", "--no-tty", "--plain-http", ref}
	for i := range filesPerModel {
		oras = append(oras, fileName(i))
	}
	cosign := []string{"tools/cosign", "sign", "--key", keyURI, "--tlog-upload=false", "--use-signing-config=false",
		"--allow-http-registry", "-y", ref}
	rows, err := b.interleave(ctx, rounds, []contender{
		{name: "aegis-oci push", program: "aegis-oci", args: []string{"push", "-q", ref, dir}, before: b.emptyRegistry},
		{name: "oras push", program: "tools/oras", args: oras, dir: dir, before: b.emptyRegistry},
		{name: "aegis-oci push --sign", program: "aegis-oci", args: signed, before: b.emptyRegistry},
		{name: "oras push, cosign sign", program: "tools/oras", args: oras, dir: dir, before: b.emptyRegistry, then: cosign},
	})
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Push 1 GiB in %d files to distribution (%d runs each)", filesPerModel, rounds), rows, "oras push")
	if err := b.emptyRegistry(); err != nil {
		return err
	}
	text, err := b.output(ctx, "aegis-oci", signed...)
	if err != nil {
		return err
	}
	var pushed struct{ Durations map[string]float64 }
	if err := json.Unmarshal([]byte(text), &pushed); err != nil {
		return err
	}
	seconds := pushed.Durations
	fmt.Printf("\nA signed push by its own clock: hashing %.2f s, upload %.2f s, signature %.2f s.\n",
		seconds["pack"], seconds["upload"], seconds["sign"])
	return nil
}

func (b *bench) pull(ctx context.Context, rounds int, ref string) error {
	out := filepath.Join(b.dir, "out")
	whole := func() error { return b.checkPulled(out, 1<<30) }
	fresh := func() error { return os.RemoveAll(out) }
	oras := []string{"pull", "--no-tty", "--plain-http", "-o", out, ref}
	rows, err := b.interleave(ctx, rounds, []contender{
		{name: "aegis-oci pull --verify", program: "aegis-oci", args: []string{"pull", "-q", "--key", b.vault.publicKey, "-o", out, ref},
			before: fresh, after: whole},
		{name: "oras pull", program: "tools/oras", args: oras, before: fresh, after: whole},
		{name: "cosign verify, oras pull", program: "tools/cosign", args: b.cosignVerify(ref), before: fresh, after: whole,
			then: append([]string{"tools/oras"}, oras...)},
	})
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Pull 1 GiB in %d files from distribution (%d runs each)", filesPerModel, rounds), rows, "oras pull")
	return errors.Join(fresh(), b.emptyRegistry())
}

// memory shows the peak of a signed push and a verified pull for growing models.
func (b *bench) memory(ctx context.Context) error {
	fmt.Printf("\nPeak memory of aegis-oci, model in %d files, on distribution\n\n| model | push --sign | pull --verify |\n|---|---|---|\n", filesPerModel)
	for _, size := range []int64{256 << 20, 1 << 30, 4 << 30} {
		if err := b.memoryOf(ctx, size); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) memoryOf(ctx context.Context, size int64) error {
	dir, out := filepath.Join(b.dir, "model"), filepath.Join(b.dir, "out")
	ref := b.distribution + "/bench/memory:v1"
	defer os.RemoveAll(dir)
	defer os.RemoveAll(out)
	if err := makeModel(dir, size); err != nil {
		return err
	}
	push, err := b.measure(ctx, "", "aegis-oci", "push", "-q", "--sign", "--key", keyURI, "--public-key", b.vault.publicKey, ref, dir)
	if err != nil {
		return err
	}
	// The source goes first: two copies are in memory at a time, not three.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	pull, err := b.measure(ctx, "", "aegis-oci", "pull", "-q", "--key", b.vault.publicKey, "-o", out, ref)
	if err != nil {
		return err
	}
	if err := b.checkPulled(out, size); err != nil {
		return err
	}
	fmt.Printf("| %d MiB | %s | %s |\n", size>>20, mib(push.peak), mib(pull.peak))
	return b.emptyRegistry()
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

// makeModel writes a model of random bytes, which neither compress nor repeat.
func makeModel(dir string, size int64) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for i := range filesPerModel {
		f, err := os.Create(filepath.Join(dir, fileName(i)))
		if err != nil {
			return err
		}
		source := rand.NewChaCha8([32]byte{byte(i), byte(size >> 20), byte(size >> 28)})
		_, err = io.CopyN(f, source, size/filesPerModel)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}
