// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package hashing computes the SHA-256 of several streams at once. Two of them on one
// core take little longer than one where the processor has instructions for SHA-256,
// since each step of a stream waits for the one before it. Only that step is ours (FIPS
// 180-4, section 6.2.2, for whole blocks): states are those of crypto/sha256, which
// does everything else, and all of it where there are no such instructions or where
// the program has to keep to validated code (FIPS 140-3).
package hashing

import (
	"crypto/fips140"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"
	"sync"
)

// pairing is whether two streams are hashed together.
var pairing = canPair() && !fips140.Enabled() && selfTest()

const (
	// The state that crypto/sha256 marshals: its name, eight words, the bytes of a
	// block that is not whole yet, and how many bytes there were in all. Releases of Go
	// read each other's, and selfTest sees if that ends.
	magic     = "sha\x03"
	stateSize = len(magic) + sha256.Size + sha256.BlockSize + 8
	// worthPairing is how many bytes of each stream are worth taking the states out of
	// their hashes and putting them back.
	worthPairing = 4 << 10
)

type state struct {
	words     [8]uint32
	marshaled [stateSize]byte
}

// partial is how many bytes of a block there are.
func (s *state) partial() int {
	return int(binary.BigEndian.Uint64(s.marshaled[stateSize-8:]) % sha256.BlockSize)
}

func (s *state) take(h hash.Hash) bool {
	a, ok := h.(encoding.BinaryAppender)
	if !ok {
		return false
	}
	b, err := a.AppendBinary(s.marshaled[:0])
	if err != nil || len(b) != stateSize || &b[0] != &s.marshaled[0] || string(b[:len(magic)]) != magic {
		return false
	}
	for i := range s.words {
		s.words[i] = binary.BigEndian.Uint32(b[len(magic)+4*i:])
	}
	return true
}

// put gives h the state after n more bytes in whole blocks.
func (s *state) put(h hash.Hash, n int) {
	b := s.marshaled[:]
	for i, w := range s.words {
		binary.BigEndian.PutUint32(b[len(magic)+4*i:], w)
	}
	total := b[stateSize-8:]
	binary.BigEndian.PutUint64(total, binary.BigEndian.Uint64(total)+uint64(n))
	if err := h.(encoding.BinaryUnmarshaler).UnmarshalBinary(b); err != nil {
		// It made this form itself a moment ago.
		panic("hashing: crypto/sha256 does not take its own state: " + err.Error())
	}
}

var scratch = sync.Pool{New: func() any { return new([2]state) }}

// Write2 is a.Write(p) and b.Write(q), in less time if a and b, which must not be the
// same, are from crypto/sha256.New.
func Write2(a, b hash.Hash, p, q []byte) {
	if pairing {
		p, q = write2(a, b, p, q)
	}
	a.Write(p)
	b.Write(q)
}

// write2 hashes what p and q have in common, in whole blocks, and returns the rest.
func write2(a, b hash.Hash, p, q []byte) (restP, restQ []byte) {
	if min(len(p), len(q)) < worthPairing {
		return p, q
	}
	s := scratch.Get().(*[2]state)
	defer scratch.Put(s)
	p, okA := s[0].align(a, p)
	q, okB := s[1].align(b, q)
	if n := min(len(p), len(q)) / sha256.BlockSize; okA && okB && n > 0 {
		blocks(&s[0].words, &s[1].words, &p[0], &q[0], n)
		n *= sha256.BlockSize
		s[0].put(a, n)
		s[1].put(b, n)
		return p[n:], q[n:]
	}
	return p, q
}

// align takes h's state, at the end of a block: the beginning of p may be needed to
// fill one up. It returns the rest of p.
func (s *state) align(h hash.Hash, p []byte) ([]byte, bool) {
	if !s.take(h) {
		return p, false
	}
	if n := s.partial(); n > 0 {
		h.Write(p[:sha256.BlockSize-n])
		return p[sha256.BlockSize-n:], s.take(h)
	}
	return p, true
}

// selfTest compares with crypto/sha256, once for each process.
func selfTest() bool {
	p, q := make([]byte, worthPairing+100), make([]byte, worthPairing+200)
	for i := range p {
		p[i], q[i] = byte(i*7), byte(i*13>>3)
	}
	a, b := sha256.New(), sha256.New()
	a.Write(p[:3])
	restP, restQ := write2(a, b, p[3:], q)
	if len(restP) > 64 || len(restQ) == len(q) {
		return false
	}
	a.Write(restP)
	b.Write(restQ)
	return [sha256.Size]byte(a.Sum(nil)) == sha256.Sum256(p) && [sha256.Size]byte(b.Sum(nil)) == sha256.Sum256(q)
}
