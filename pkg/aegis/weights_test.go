// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis_test

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
)

// keystream is random and differs with seed. The race detector makes a generator
// that is called for every word take longer than the tests; this is one call.
func keystream(seed uint64) cipher.Stream {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err)
	}
	return cipher.NewCTR(block, key[:aes.BlockSize])
}

// weights are bytes that do not compress and differ with seed.
func weights(seed uint64, size int) []byte {
	b := make([]byte, size)
	keystream(seed).XORKeyStream(b, b)
	return b
}

// writeWeights writes weights to a file piece by piece: fresh memory of that size
// is slow under the race detector.
func writeWeights(t testing.TB, path string, seed uint64, size int) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	stream, buf := keystream(seed), make([]byte, 64<<10)
	for left := size; left > 0; {
		piece := buf[:min(left, len(buf))]
		clear(piece)
		stream.XORKeyStream(piece, piece)
		if _, err := f.Write(piece); err != nil {
			t.Fatal(err)
		}
		left -= len(piece)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// fileDigest holds little of the file in memory at a time; see writeWeights.
func fileDigest(path string) (digest.Digest, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return digest.FromReader(f)
}
