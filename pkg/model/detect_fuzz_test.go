// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"runtime"
	"testing"
)

// heldBytes runs read and reports about how many bytes it allocated.
func heldBytes(read func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	read()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzReadSafetensors(f *testing.F) {
	f.Add([]byte(packSafetensors(`{"a":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]},"__metadata__":{"x":"y"}}`)))
	f.Add([]byte(packSafetensors(`{"a":{"dtype":"F16","shape":[[[[]]]]}}`)))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var count tensorCount
		read := func() {
			readSafetensors(bytes.NewReader(raw), int64(len(raw)), func(name, dtype string, n int64) {
				if n < 0 {
					t.Fatalf("tensor %q of %d parameters", name, n)
				}
				count.add("p", name, dtype, n)
			})
		}
		if held := heldBytes(read); held > 1<<20+100*uint64(len(raw)) {
			t.Fatalf("%d bytes allocated to read %d", held, len(raw))
		}
		if count.sum() < 0 {
			t.Fatalf("%d parameters", count.sum())
		}
	})
}

func FuzzReadGGUF(f *testing.F) {
	f.Add([]byte(llamaGGUF()))
	f.Add([]byte("GGUF\x03\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"))
	f.Add([]byte(packGGUF([]ggufPair{{"k", ggufArray, append(ggufNumber(ggufArray), ggufText("aaaa")...)}}, nil)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var count tensorCount
		read := func() {
			h, _ := readGGUF(bytes.NewReader(raw), int64(len(raw)), func(name string, n int64) {
				if n < 0 {
					t.Fatalf("tensor %q of %d parameters", name, n)
				}
				count.add("p", name, "", n)
			})
			for key, text := range h.text {
				if len(text) > maxGGUFText {
					t.Fatalf("%s of %d bytes was kept", key, len(text))
				}
			}
		}
		// One string of a forged length, at most, is allocated before the end
		// is noticed.
		if held := heldBytes(read); held > 1<<20+100*uint64(len(raw)) {
			t.Fatalf("%d bytes allocated to read %d", held, len(raw))
		}
		if count.sum() < 0 {
			t.Fatalf("%d parameters", count.sum())
		}
	})
}
