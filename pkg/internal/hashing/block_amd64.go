// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package hashing

import "golang.org/x/sys/cpu"

// hasSHA reports the instructions SHA256RNDS2, SHA256MSG1 and SHA256MSG2: CPUID leaf
// 7, EBX bit 29. golang.org/x/sys/cpu does not say.
func hasSHA() bool

// blocks continues two states, a with the n blocks at p and b with the n blocks at q.
// Each instruction of a state waits for the one before, and the processor has time for
// the other state meanwhile: two take as long as one.
//
//go:noescape
func blocks(a, b *[8]uint32, p, q *byte, n int)

func canPair() bool { return cpu.X86.HasSSSE3 && cpu.X86.HasSSE41 && hasSHA() }
