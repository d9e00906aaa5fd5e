// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// signersAtOnce are the processes that sign one manifest at the same time.
const signersAtOnce = 8

// TestConcurrentSignersLoseNothing has eight processes sign one manifest on the
// registry whose list of signatures is a tag that each of them rewrites.
// AEGIS_STRESS_ROUNDS is the number of manifests, 3 if it is not set.
func TestConcurrentSignersLoseNothing(t *testing.T) {
	rounds := 3
	if value := os.Getenv("AEGIS_STRESS_ROUNDS"); value != "" {
		var err error
		if rounds, err = strconv.Atoi(value); err != nil || rounds < 1 {
			t.Fatalf("AEGIS_STRESS_ROUNDS=%q is no number of rounds", value)
		}
	}
	r := withoutReferrers(t)
	key, public := r.key(t, "", "ecdsa-p256")
	whole := 0
	var slowest, sum time.Duration
	for round := range rounds {
		ref := r.push(t, r.repo(t, "")+":v"+strconv.Itoa(round), "-a", "round="+strconv.Itoa(round))
		start := time.Now()
		signed := r.signAtOnce(t, key, ref)
		took := time.Since(start)
		slowest, sum = max(slowest, took), sum+took

		listed := []string{}
		for _, d := range r.discover(t, ref) {
			listed = append(listed, d.Digest)
		}
		slices.Sort(signed)
		slices.Sort(listed)
		if !slices.Equal(signed, listed) {
			t.Errorf("round %d: %d signatures made, %d listed\nmade   %v\nlisted %v", round, len(signed), len(listed), signed, listed)
			continue
		}
		r.allAccepted(t, public, ref)
		whole++
	}
	t.Logf("%d of %d rounds with all %d signatures listed; a round took %s on average, %s at most",
		whole, rounds, signersAtOnce, (sum / time.Duration(rounds)).Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// signAtOnce returns the digests that the signers say they have attached.
func (r *rig) signAtOnce(t *testing.T, key, ref string) []string {
	t.Helper()
	results := make([]result, signersAtOnce)
	var all sync.WaitGroup
	for i := range results {
		cmd := r.command(t, "aegis-oci", "sign", "--quiet", "--format", "json", "--key", key, "-a", fmt.Sprintf("signer=%d", i), ref)
		all.Go(func() { results[i] = run(t, cmd) })
	}
	all.Wait()
	digests := []string{}
	for i, got := range results {
		if got.code != exitOK {
			t.Errorf("signer %d: exit %d\n%s", i, got.code, got.stderr)
			continue
		}
		var made struct {
			Signatures []struct {
				Digest string `json:"digest"`
			} `json:"signatures"`
		}
		decode(t, got.stdout, &made)
		for _, s := range made.Signatures {
			digests = append(digests, s.Digest)
		}
	}
	return digests
}

// allAccepted has inspect judge the signatures under the key.
func (r *rig) allAccepted(t *testing.T, public, ref string) {
	t.Helper()
	var inspected struct {
		Signatures []struct {
			Digest string `json:"digest"`
			Status string `json:"status"`
		} `json:"signatures"`
	}
	decode(t, r.aegis(t, exitOK, "inspect", "--format", "json", "--key", public, ref).stdout, &inspected)
	if len(inspected.Signatures) != signersAtOnce {
		t.Errorf("%s: inspect shows %d signatures, want %d", ref, len(inspected.Signatures), signersAtOnce)
	}
	for _, s := range inspected.Signatures {
		if s.Status != "accepted" {
			t.Errorf("%s: signature %s is %s", ref, s.Digest, s.Status)
		}
	}
}
