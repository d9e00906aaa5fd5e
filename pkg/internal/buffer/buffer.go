// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package buffer keeps buffers that content moves through.
package buffer

import "sync"

// Pool keeps buffers of one size. It is safe for concurrent use.
type Pool struct {
	size int
	pool sync.Pool
}

// NewPool returns a Pool of buffers of size bytes.
func NewPool(size int) *Pool { return &Pool{size: size} }

// Get returns a buffer, with anything in it. One that is made for somebody who fills it,
// as others beside it are filled, is in large pages where it can be: a page's first use can
// take longer than all else that is done with what is in it. One that gets a few bytes
// would take 2 MiB of memory in them.
func (p *Pool) Get(filled bool) *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	if filled && p.size >= worthAdvice {
		adviseLarge(b)
	}
	return &b
}

// worthAdvice is the least size of a buffer that is worth a large page. Of smaller ones the
// last may be the only one in its page.
const worthAdvice = 512 << 10

// Put takes a buffer back, or another one of the same size for it.
func (p *Pool) Put(b *[]byte) { p.pool.Put(b) }
