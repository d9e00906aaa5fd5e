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
	"slices"
	"time"
)

// large is the model that is pushed and pulled: one large file and two smaller.
var large = []int64{2 << 30, 512 << 20, 512 << 20}

func (b *bench) modctl(args ...string) []string {
	return append(args, "--plain-http", "--no-progress",
		"--storage-dir", filepath.Join(b.dir, "modctl"), "--log-dir", filepath.Join(b.dir, "modctl-log"))
}

// prepareLarge pushes the large model, signed, to distribution.
func (b *bench) prepareLarge(ctx context.Context) (ref string, err error) {
	dir := filepath.Join(b.dir, "model")
	defer os.RemoveAll(dir)
	if err := makeFiles(dir, 1, large...); err != nil {
		return "", err
	}
	ref = b.distribution + "/bench/large:v1"
	_, err = b.output(ctx, "aegis-oci", b.pushSigned(ref, dir)...)
	return ref, err
}

func (b *bench) pushSigned(ref string, paths ...string) []string {
	return append([]string{"push", "-q", "--sign", "--key", keyURI, "--public-key", b.vault.publicKey, ref}, paths...)
}

// pulls are the ways to pull ref into out, ours first.
func (b *bench) pulls(ref, out string, size int64) []contender {
	fresh := func() error { return os.RemoveAll(out) }
	whole := func() error { return b.checkPulled(out, size) }
	all := []contender{
		{name: "aegis-oci pull --verify", program: "aegis-oci", args: []string{"pull", "-q", "--key", b.vault.publicKey, "-o", out, ref}},
		{name: "oras pull", program: "tools/oras", args: []string{"pull", "--no-tty", "--plain-http", "-o", out, ref}},
		{name: "modctl pull", program: "tools/modctl", args: b.modctl("pull", ref, "--extract-from-remote", "--extract-dir", out)},
	}
	for i := range all {
		all[i].before, all[i].after = fresh, whole
	}
	return all
}

// pull measures pulling the large model, on the tmpfs and then on a disk.
func (b *bench) pull(ctx context.Context) error {
	ref, err := b.prepareLarge(ctx)
	if err != nil {
		return err
	}
	out := filepath.Join(b.dir, "out")
	rows, err := b.interleave(ctx, b.transfers, b.pulls(ref, out, total(large)))
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Pull 3 GiB from distribution, tmpfs (%d runs each)", b.transfers), rows, "oras pull")
	b.judgeRatio("pull 3 GiB", rows, 0.70)
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	return errors.Join(b.pullToDisk(ctx, ref), b.emptyRegistry())
}

// diskRest is how long a disk has nothing to do before a pull. One that is held to a rate
// lets more through for a while after that; the peers leave it idle while they download,
// and so would have in the middle of a pull what ours has not at its beginning.
const diskRest = 5 * time.Second

// pullToDisk writes to a disk. What the one before has left to be written is
// written first.
func (b *bench) pullToDisk(ctx context.Context, ref string) error {
	dir, err := os.MkdirTemp(b.disk, "aegis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	contenders := b.pulls(ref, filepath.Join(dir, "out"), total(large))
	for i := range contenders {
		fresh := contenders[i].before
		contenders[i].before = func() error {
			if err := errors.Join(fresh(), syncFiles(dir)); err != nil {
				return err
			}
			waitFor(ctx, diskRest)
			return ctx.Err()
		}
		// The peers leave the data in the page cache; a model that is to survive the
		// node's end has to be on the disk.
		contenders[i].settle = func() error { return syncFiles(dir) }
	}
	rows, err := b.interleave(ctx, b.onDisk, contenders)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Pull 3 GiB from distribution to a disk, until it is there (%d runs each)", b.onDisk), rows, "oras pull")
	b.judgeRatio("pull 3 GiB to a disk, sync counted", rows, 0.70)
	return nil
}

// push measures pushing the large model cold, and then again.
func (b *bench) push(ctx context.Context) error {
	dir, ref := filepath.Join(b.dir, "model"), b.distribution+"/bench/large:v1"
	if err := makeFiles(dir, 1, large...); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	contenders, err := b.pushers(ref, dir)
	if err != nil {
		return err
	}
	rows, err := b.interleave(ctx, b.transfers, contenders)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Push 3 GiB to distribution (%d runs each)", b.transfers), rows, "oras push")
	b.judgeRatio("push 3 GiB, cold", rows, 0.70)

	cosign := []string{"tools/cosign", "sign", "--key", keyURI, "--tlog-upload=false", "--use-signing-config=false", "--allow-http-registry", "-y", ref}
	signed, err := b.inTurn(ctx, max(b.transfers/2, 2), false, []contender{
		{name: "aegis-oci push --sign", program: "aegis-oci", args: b.pushSigned(ref, dir), before: b.emptyRegistry},
		{name: "oras push, cosign sign", program: "tools/oras", args: contenders[1].args, dir: dir, before: b.emptyRegistry, then: cosign},
	})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	table("Push 3 GiB and sign", signed, "oras push, cosign sign")
	return errors.Join(b.pushAgain(ctx, ref), b.emptyRegistry())
}

// pushers are the ways to push the large model in dir, ours first, to an empty registry.
func (b *bench) pushers(ref, dir string) ([]contender, error) {
	oras := []string{"push", "--no-tty", "--plain-http", ref}
	for i := range large {
		oras = append(oras, fileName(i))
	}
	build, err := b.modctlBuild(dir, ref, "--raw")
	return []contender{
		{name: "aegis-oci push", program: "aegis-oci", args: []string{"push", "-q", ref, dir}, before: b.emptyRegistry},
		{name: "oras push", program: "tools/oras", args: oras, dir: dir, before: b.emptyRegistry},
		{name: "modctl build --output-remote", program: "tools/modctl", args: build, before: b.forgetModctl(dir)},
	}, err
}

// modctlBuild is how modctl pushes the large model.
func (b *bench) modctlBuild(dir, ref string, more ...string) ([]string, error) {
	modelfile, name := "NAME large\n", filepath.Join(b.dir, "Modelfile")
	for i := range large {
		modelfile += "MODEL " + fileName(i) + "\n"
	}
	args := append([]string{"build", dir, "-f", name, "-t", ref, "--output-remote", "--no-creation-time"}, more...)
	return b.modctl(args...), os.WriteFile(name, []byte(modelfile), 0o600)
}

// tars measures pulling the large model where each file is in an uncompressed tar, as
// modctl and KitOps write them.
func (b *bench) tars(ctx context.Context) error {
	dir, out, ref := filepath.Join(b.dir, "model"), filepath.Join(b.dir, "out"), b.distribution+"/bench/tars:v1"
	if err := makeFiles(dir, 1, large...); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	build, err := b.modctlBuild(dir, ref, "--raw=false")
	if err != nil {
		return err
	}
	if _, err := b.output(ctx, "tools/modctl", build...); err != nil {
		return err
	}
	if _, err := b.output(ctx, "aegis-oci", "sign", "-q", "--key", keyURI, "--public-key", b.vault.publicKey, ref); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	pulls := slices.DeleteFunc(b.pulls(ref, out, total(large)), func(c contender) bool { return c.name == "oras pull" })
	rows, err := b.interleave(ctx, b.transfers, pulls)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Pull 3 GiB in three tars from distribution, tmpfs (%d runs each)", b.transfers), rows, "modctl pull")
	return errors.Join(os.RemoveAll(out), b.emptyRegistry())
}

// forgetModctl removes the registry's content, and the digests that modctl keeps
// in extended attributes of the files.
func (b *bench) forgetModctl(dir string) func() error {
	return func() error {
		for i := range large {
			if err := removeAttributes(filepath.Join(dir, fileName(i))); err != nil {
				return err
			}
		}
		return b.emptyRegistry()
	}
}

// pushAgain pushes what is there, and signs it anew with the digests of the cache, which
// only counts there when it is said to be trusted: an unsigned push takes it anyway. The
// files are on the disk: of what is in memory nothing is remembered.
func (b *bench) pushAgain(ctx context.Context, ref string) error {
	dir, err := os.MkdirTemp(b.disk, "aegis-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := makeFiles(dir, 1, large...); err != nil {
		return err
	}
	contenders, err := b.pushers(ref, dir)
	if err != nil {
		return err
	}
	for i := range contenders {
		contenders[i].before = nil
	}
	signed := b.pushSigned(ref, dir)
	contenders = append(contenders, contender{name: "aegis-oci push --sign --trust-digest-cache", program: "aegis-oci",
		args: append([]string{"push", "--trust-digest-cache"}, signed[1:]...)})
	rows, err := b.interleave(ctx, b.transfers, contenders)
	if err != nil {
		return err
	}
	table(fmt.Sprintf("Push the same 3 GiB again (%d runs each)", b.transfers), rows, "oras push")
	b.judgeRatio("push 3 GiB again, unchanged", rows[:3], 0.15)
	return nil
}
