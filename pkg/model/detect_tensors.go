// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math"
	"math/bits"
	"path"
	"regexp"
	"slices"
	"strings"
)

// maxTensors bounds the tensors that are counted, and with them the memory: the
// largest models published have about a tenth.
const maxTensors = 1 << 19

// tensorCount adds up the parameters of tensors. A name counts once in each
// directory, so that the same weights in a second precision do not double the
// model. The zero tensorCount is empty.
type tensorCount struct {
	seen    map[uint64]struct{}
	byType  map[string]int64 // parameters, by the spec's name of the type or ""
	all     int64
	unknown bool // too many to count, or a header that was not understood
}

// add counts one tensor of the file p.
func (t *tensorCount) add(p, name, dtype string, parameters int64) {
	h := fnv.New64a()
	io.WriteString(h, path.Dir(p)+"\x00"+name)
	if _, ok := t.seen[h.Sum64()]; ok {
		return
	}
	if len(t.seen) == maxTensors || t.all > math.MaxInt64-parameters {
		t.unknown = true
		return
	}
	if t.seen == nil {
		t.seen, t.byType = make(map[uint64]struct{}), make(map[string]int64)
	}
	t.seen[h.Sum64()] = struct{}{}
	t.byType[dtype] += parameters
	t.all += parameters
}

// sum is the number of parameters, zero when it is not known.
func (t *tensorCount) sum() int64 {
	if t.unknown {
		return 0
	}
	return t.all
}

// precision lists the types that hold at least one in a hundred parameters, the
// most used first: a norm or a bias kept in float32 is not worth a word.
func (t *tensorCount) precision() string {
	types := slices.SortedFunc(maps.Keys(t.byType), func(a, b string) int {
		return cmp.Or(cmp.Compare(t.byType[b], t.byType[a]), cmp.Compare(a, b))
	})
	var out []string
	for _, name := range types {
		if name != "" && t.byType[name] > 0 && t.byType[name] >= t.all/100 {
			out = append(out, name)
		}
	}
	return strings.Join(out, ",")
}

// elements multiplies the dimensions of a tensor; false when they overflow.
func elements(shape []int64) (int64, bool) {
	n := uint64(1)
	for _, d := range shape {
		hi, lo := bits.Mul64(n, uint64(d))
		if d < 0 || hi != 0 || lo > math.MaxInt64 {
			return 0, false
		}
		n = lo
	}
	return int64(n), true
}

// paramSize writes a number of parameters as the spec has it, "6.7B": at most one
// decimal and one of K, M, B, T, Q. Fewer than 50 parameters have no such form.
func paramSize(n int64) string {
	if n < 50 || n > math.MaxInt64/20 {
		return ""
	}
	scale := int64(1)
	for _, letter := range "KMBTQ" {
		scale *= 1000
		tenths := (n*10 + scale/2) / scale
		if tenths >= 10_000 && letter != 'Q' {
			continue
		}
		if tenths%10 == 0 {
			return fmt.Sprintf("%d%c", tenths/10, letter)
		}
		return fmt.Sprintf("%d.%d%c", tenths/10, tenths%10, letter)
	}
	return ""
}

var paramSizePattern = regexp.MustCompile(`^[0-9]+(\.[0-9])?[KMBTQkmbtq]$`)

func isParamSize(s string) bool { return paramSizePattern.MatchString(s) }
