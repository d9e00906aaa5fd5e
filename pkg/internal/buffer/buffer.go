// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package buffer keeps the large buffers that content moves through.
package buffer

import "sync"

// Pool keeps buffers of one size. It is safe for concurrent use.
type Pool struct {
	size int
	pool sync.Pool
}

// NewPool returns a Pool of buffers of size bytes.
func NewPool(size int) *Pool { return &Pool{size: size} }

// Get returns a buffer, with anything in it. One that is to be filled, as others beside
// it are, can be in large pages: where the memory of a virtual machine is mapped by two
// tables, touching a page for the first time takes ten times as long as hashing it. One
// that holds a few bytes would take 2 MiB of memory in them.
func (p *Pool) Get(filled bool) *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	if filled {
		adviseLarge(b)
	}
	return &b
}

// Put takes a buffer back, or another one of the same size for it.
func (p *Pool) Put(b *[]byte) { p.pool.Put(b) }
