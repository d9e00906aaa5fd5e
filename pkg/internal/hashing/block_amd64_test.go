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

// A processor that has the instructions has to use them, or all of the tests of pairs
// are of crypto/sha256 alone.
func TestPairingIsOnWhereItCanBe(t *testing.T) {
	t.Parallel()
	if want := canPair() && !fips140.Enabled(); pairing != want {
		t.Errorf("pairing is %v, want %v", pairing, want)
	}
	if flags, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if says := strings.Contains(string(flags), " sha_ni"); says != canPair() {
			t.Errorf("the kernel says %v about sha_ni and CPUID %v", says, canPair())
		}
	}
	p := text(9, 2*worthPairing)
	if rest, _ := write2(sha256.New(), sha256.New(), p, p); canPair() && len(rest) != 0 {
		t.Errorf("%d of %d bytes were left to crypto/sha256", len(rest), len(p))
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
