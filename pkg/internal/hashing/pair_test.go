// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package hashing

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"fmt"
	"math/rand/v2"
	"testing"
)

// text is n bytes that have no period.
func text(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

// together hashes the beginnings each by itself and the rest together, and compares the
// sums and the states with what crypto/sha256 says of the whole.
func together(t *testing.T, p, q []byte, beforeP, beforeQ int) {
	t.Helper()
	a, b := sha256.New(), sha256.New()
	a.Write(p[:beforeP])
	b.Write(q[:beforeQ])
	Write2(a, b, p[beforeP:], q[beforeQ:])
	for i, got := range []encoding.BinaryMarshaler{a.(encoding.BinaryMarshaler), b.(encoding.BinaryMarshaler)} {
		want := sha256.New()
		want.Write([][]byte{p, q}[i])
		wantState, _ := want.(encoding.BinaryMarshaler).MarshalBinary()
		if state, err := got.MarshalBinary(); err != nil || !bytes.Equal(state, wantState) {
			t.Fatalf("stream %d of %d and %d bytes, of which %d and %d came before: state %x, want %x (%v)",
				i, len(p), len(q), beforeP, beforeQ, state, wantState, err)
		}
	}
	if [32]byte(a.Sum(nil)) != sha256.Sum256(p) || [32]byte(b.Sum(nil)) != sha256.Sum256(q) {
		t.Fatalf("%d and %d bytes: wrong sum", len(p), len(q))
	}
}

func TestTwoStreamsHaveTheirOwnSums(t *testing.T) {
	t.Parallel()
	p, q := text(1, 3*worthPairing), text(2, 3*worthPairing)
	t.Run("every beginning of a block", func(t *testing.T) {
		t.Parallel()
		for i := range 65 {
			for j := range 65 {
				together(t, p[:worthPairing+130], q[:worthPairing+64+i], i, j)
			}
		}
	})
	t.Run("every length of the rest", func(t *testing.T) {
		t.Parallel()
		for n := worthPairing - 66; n < worthPairing+130; n++ {
			together(t, p[:n], q, 0, 0)
			together(t, p, q[:n], 1, 63)
		}
	})
	t.Run("every number of blocks", func(t *testing.T) {
		t.Parallel()
		for n := range len(p) / 64 {
			together(t, p[:64*n], q[:64*n], 0, 0)
		}
	})
	t.Run("much", func(t *testing.T) {
		t.Parallel()
		for i := range 20 {
			p, q := text(uint64(2*i+3), 1<<20+i), text(uint64(2*i+4), 1<<20-i)
			together(t, p, q, 7*i, 5*i)
		}
	})
	t.Run("the same bytes", func(t *testing.T) {
		t.Parallel()
		together(t, p, p, 0, 0)
	})
	t.Run("bits that are all alike", func(t *testing.T) {
		t.Parallel()
		together(t, make([]byte, worthPairing), bytes.Repeat([]byte{0xff}, worthPairing), 0, 0)
	})
}

func TestTheLengthGoesOnAcrossPairs(t *testing.T) {
	t.Parallel()
	p, q := text(5, 40*worthPairing+17), text(6, 40*worthPairing+99)
	a, b := sha256.New(), sha256.New()
	r := rand.New(rand.NewPCG(1, 2))
	restP, restQ := p, q
	for len(restP) > 0 || len(restQ) > 0 {
		i, j := min(len(restP), r.IntN(3*worthPairing)), min(len(restQ), r.IntN(3*worthPairing))
		Write2(a, b, restP[:i], restQ[:j])
		restP, restQ = restP[i:], restQ[j:]
	}
	if [32]byte(a.Sum(nil)) != sha256.Sum256(p) || [32]byte(b.Sum(nil)) != sha256.Sum256(q) {
		t.Error("wrong sum")
	}
}

func FuzzTwoStreams(f *testing.F) {
	f.Add(uint64(1), uint16(5000), uint16(6000), uint16(3), uint16(64))
	f.Add(uint64(2), uint16(worthPairing), uint16(worthPairing), uint16(0), uint16(0))
	f.Fuzz(func(t *testing.T, seed uint64, n, m, i, j uint16) {
		p, q := text(seed, int(n)), text(seed+1, int(m))
		together(t, p, q, min(int(i), len(p)), min(int(j), len(q)))
	})
}

func BenchmarkHash(b *testing.B) {
	p, q := text(1, 256<<10), text(2, 256<<10)
	x, y := sha256.New(), sha256.New()
	for _, two := range []bool{false, true} {
		b.Run(fmt.Sprintf("together=%v", two), func(b *testing.B) {
			b.SetBytes(int64(len(p) + len(q)))
			for b.Loop() {
				if two {
					Write2(x, y, p, q)
				} else {
					x.Write(p)
					y.Write(q)
				}
			}
		})
	}
}
