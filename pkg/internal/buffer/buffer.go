// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package buffer keeps buffers that content moves through.
package buffer

import "sync"

// Large is the size of the buffers, in bytes, that most content moves through: four of them
// fill a large page.
const Large = 512 << 10

// Block is a buffer of Large bytes of a pool. What takes one is for this module alone: nobody
// else is to have memory that is unmapped one day.
type Block []byte

// Pool keeps buffers of one size. It is safe for concurrent use.
type Pool struct {
	size int
	pool sync.Pool
}

// NewPool returns a Pool of buffers of size bytes. Those of Large bytes are outside the heap
// where that can be, and shared by all pools of that size.
func NewPool(size int) *Pool { return &Pool{size: size} }

// Get returns a buffer, with anything in it. One of Large bytes has to be given back, and
// nobody may use a slice of it after that.
func (p *Pool) Get() *[]byte {
	if p.size == Large {
		return large.get()
	}
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, p.size)
	return &b
}

// Put takes a buffer back, or another one of the same size for it, which is that of a pool
// as well.
func (p *Pool) Put(b *[]byte) {
	if p.size == Large {
		large.put(b)
		return
	}
	p.pool.Put(b)
}
