// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// signersAtOnce are the processes that sign one manifest at the same time.
const signersAtOnce = 8

// manifestsAtOnce are signed at the same time, eight signers each. More than one
// says less: what delays a signer between its read and its write is then the crowd
// on the processor, and not the other signers of its manifest.
const manifestsAtOnce = 1

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
	var mu sync.Mutex
	whole := 0
	var slowest, sum time.Duration
	t.Run("rounds", func(t *testing.T) {
		var next atomic.Int64
		for i := range manifestsAtOnce {
			t.Run(strconv.Itoa(i), func(t *testing.T) {
				t.Parallel()
				for round := int(next.Add(1)) - 1; round < rounds; round = int(next.Add(1)) - 1 {
					took, ok := r.signingRound(t, key, public, round)
					mu.Lock()
					slowest, sum = max(slowest, took), sum+took
					if ok {
						whole++
					}
					mu.Unlock()
				}
			})
		}
	})
	if whole != rounds {
		t.Errorf("%d of %d rounds are whole", whole, rounds)
	}
	t.Logf("%d of %d rounds with all %d signatures listed, %d manifests at once; a round took %s on average, %s at most",
		whole, rounds, signersAtOnce, manifestsAtOnce, (sum / time.Duration(rounds)).Round(time.Millisecond), slowest.Round(time.Millisecond))
}

// signingRound has eight processes sign one new manifest, and reports whether all
// their signatures are listed and accepted.
func (r *rig) signingRound(t *testing.T, key, public string, round int) (took time.Duration, ok bool) {
	ref := r.push(t, r.repo(t, "")+":v"+strconv.Itoa(round), "-a", "round="+strconv.Itoa(round))
	start := time.Now()
	signed := r.signAtOnce(t, key, ref)
	took = time.Since(start)
	listed := []string{}
	for _, d := range r.discover(t, ref) {
		listed = append(listed, d.Digest)
	}
	slices.Sort(signed)
	slices.Sort(listed)
	if len(signed) != signersAtOnce || !slices.Equal(signed, listed) {
		t.Errorf("round %d: %d signatures made, %d listed\nmade   %v\nlisted %v", round, len(signed), len(listed), signed, listed)
		return took, false
	}
	return took, r.allAccepted(t, public, ref)
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
func (r *rig) allAccepted(t *testing.T, public, ref string) bool {
	t.Helper()
	var inspected struct {
		Signatures []struct {
			Digest string `json:"digest"`
			Status string `json:"status"`
		} `json:"signatures"`
	}
	decode(t, r.aegis(t, exitOK, "inspect", "--format", "json", "--key", public, ref).stdout, &inspected)
	accepted := 0
	for _, s := range inspected.Signatures {
		if s.Status == "accepted" {
			accepted++
		} else {
			t.Errorf("%s: signature %s is %s", ref, s.Digest, s.Status)
		}
	}
	if accepted != signersAtOnce || len(inspected.Signatures) != signersAtOnce {
		t.Errorf("%s: inspect shows %d signatures, %d accepted, want %d", ref, len(inspected.Signatures), accepted, signersAtOnce)
		return false
	}
	return true
}
