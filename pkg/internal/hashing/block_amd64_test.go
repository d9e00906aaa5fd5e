// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package hashing

import (
	"crypto/fips140"
	"crypto/sha256"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// askKernel compares what CPUID says about a processor that has all of names with what the
// kernel says, if it does.
func askKernel(t *testing.T, cpuid bool, names ...string) {
	t.Helper()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return
	}
	says := true
	for _, name := range names {
		says = says && strings.Contains(string(text), name)
	}
	if says != cpuid {
		t.Errorf("the kernel says %v about %q and CPUID %v", says, names, cpuid)
	}
}

// A processor that has the instructions has to use them, or all of the tests of pairs
// are of crypto/sha256 alone.
func TestPairingIsOnWhereItCanBe(t *testing.T) {
	t.Parallel()
	if want := canPair() && !fips140.Enabled(); pairing != want {
		t.Errorf("pairing is %v, want %v", pairing, want)
	}
	askKernel(t, canPair(), " sha_ni")
	p := text(9, 2*worthPairing)
	if rest, _ := write2(sha256.New(), sha256.New(), p, p); canPair() && len(rest) != 0 {
		t.Errorf("%d of %d bytes were left to crypto/sha256", len(rest), len(p))
	}
}

// Whichever of the two a processor has, the other one says the same.
func TestNarrowAndWideAgree(t *testing.T) {
	t.Parallel()
	askKernel(t, isIntel(), "GenuineIntel")
	askKernel(t, canWide(), " sha_ni", " avx512f", " avx512bw", " avx512vl")
	if !canWide() {
		return // one of them is all there is
	}
	for n := range 70 {
		p, q := text(uint64(n), 64*n+1), text(uint64(n)+100, 64*n+1)
		a, b := [8]uint32{1, 2, 3, 4, 5, 6, 7, uint32(n)}, [8]uint32{1 << 31, 1<<32 - 1, 0, 9, 8, 7, 6, 5}
		c, d := a, b
		blocksNarrow(&a, &b, &p[0], &q[0], n)
		blocksWide(&c, &d, &p[0], &q[0], n)
		if a != c || b != d {
			t.Fatalf("after %d blocks the states are %x and %x, and %x and %x", n, a, b, c, d)
		}
		if same := a == [8]uint32{1, 2, 3, 4, 5, 6, 7, uint32(n)}; same != (n == 0) {
			t.Fatalf("after %d blocks the state is as before: %v", n, same)
		}
	}
}

// allBlocks are those that this processor can run.
func allBlocks() map[string]func(a, b *[8]uint32, p, q *byte, n int) {
	all := make(map[string]func(a, b *[8]uint32, p, q *byte, n int))
	if canPair() {
		all["narrow"] = blocksNarrow
	}
	if canWide() {
		all["wide"] = blocksWide
	}
	return all
}

// What is measured to choose one of them.
func BenchmarkBlocks(b *testing.B) {
	p, q := text(1, 256<<10), text(2, 256<<10)
	for name, blocks := range allBlocks() {
		b.Run(name, func(b *testing.B) {
			var x, y [8]uint32
			b.SetBytes(int64(len(p) + len(q)))
			for b.Loop() {
				blocks(&x, &y, &p[0], &q[0], len(p)/64)
			}
		})
	}
}

// In FIPS 140-3 mode everything is left to the validated code.
func TestFIPSModeDoesNotPair(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingIsPaired$", "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140=on", "AEGIS_TEST_FIPS=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNothingIsPaired") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNothingIsPaired(t *testing.T) {
	if os.Getenv("AEGIS_TEST_FIPS") == "" {
		return // of the test above
	}
	if pairing {
		t.Error("pairing is on")
	}
	together(t, text(1, 3*worthPairing), text(2, 3*worthPairing), 1, 2)
}
