// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"strconv"
	"strings"
)

const (
	tarBlock = 512
	// minPiece is the smallest file of an archive that gets a piece of its own: the blocks
	// and the inodes that a piece takes besides are little then.
	minPiece = 64 << 10
	// maxPAX bounds the records of one entry, as archive/tar does.
	maxPAX = 1 << 20
)

// splitter says where an uncompressed tar that is being fetched is cut into pieces, so
// that what will be a file is a file on the disk already. Pieces with an even number hold
// headers, padding and small files, those with an odd one a file each.
//
// It sees what nobody has checked, and decides nothing but the cuts: the pieces in their
// order are the blob, and archive/tar reads them as such when they have the digest. Where
// it finds the same cuts, a piece is the file, and else its content is copied. So it need
// not understand every tar; what it does not, it leaves in one piece.
type splitter struct {
	left    int64 // of the blob
	piece   int   // that the next byte belongs to
	content int64 // left of a piece with an odd number
	skip    int64 // up to the next header
	header  []byte
	pax     []byte // records of the next entry, while they are read
	size    int64  // of the next entry, by those records; negative when they say nothing
	blind   bool   // no more cuts
}

func newSplitter(size int64) *splitter { return &splitter{left: size, size: -1} }

// step takes the first bytes of p, n of them, which all belong to the piece that was the
// current one before.
func (s *splitter) step(p []byte) (n int) {
	defer func() { s.left -= int64(n) }()
	switch {
	case s.blind:
		return len(p)
	case s.content > 0:
		n = int(min(int64(len(p)), s.content))
		if s.content -= int64(n); s.content == 0 {
			s.piece++
		}
		return n
	case s.skip > 0:
		n = int(min(int64(len(p)), s.skip))
		s.skip -= int64(n)
		if s.pax != nil {
			s.pax = append(s.pax, p[:n]...)
			if s.skip == 0 {
				s.size, s.pax = paxSize(s.pax), nil
			}
		}
		return n
	}
	n = min(len(p), tarBlock-len(s.header))
	if s.header = append(s.header, p[:n]...); len(s.header) == tarBlock {
		s.read(s.left - int64(n))
		s.header = s.header[:0]
	}
	return n
}

// read finds out what follows a header, of which left bytes are to come.
func (s *splitter) read(left int64) {
	h := s.header
	s.pax = nil
	if len(bytes.TrimLeft(h, "\x00")) == 0 {
		return // of the end
	}
	size, ok := tarNumber(h[124:136])
	kind := h[156]
	plain := kind == '0' || kind == 0 || kind == '7'
	if plain && s.size >= 0 {
		size = s.size
	}
	if !ok || size > left {
		s.blind = true
		return
	}
	switch kind {
	case 'x':
		if size > maxPAX {
			s.blind = true
			return
		}
		s.size = -1
		if size > 0 {
			// With the padding, which paxSize does not get to.
			s.pax = make([]byte, 0, padded(size))
		}
	case 'g', 'L', 'K':
	case '1', '2', '3', '4', '5', '6':
		s.size = -1
		return // they have no content, whatever their size says
	default:
		s.size = -1
	}
	s.skip = padded(size)
	if plain && size >= minPiece && s.piece < 2*maxLayers {
		s.piece++
		s.content, s.skip = size, s.skip-size
	}
}

func padded(size int64) int64 { return (size + tarBlock - 1) / tarBlock * tarBlock }

// tarNumber reads a number in octal, or in base 256.
func tarNumber(field []byte) (int64, bool) {
	if field[0]&0x80 != 0 {
		var n int64
		for i, c := range field {
			if i == 0 {
				c &= 0x7f
			}
			if n >= 1<<54 {
				return 0, false
			}
			n = n<<8 | int64(c)
		}
		return n, true
	}
	text := strings.Trim(string(field), " \x00")
	if text == "" {
		return 0, true
	}
	n, err := strconv.ParseInt(text, 8, 63)
	return n, err == nil && n >= 0
}

// paxSize is the size in the records of an entry, negative where they have none.
func paxSize(records []byte) int64 {
	size := int64(-1)
	for len(records) > 0 {
		length, rest, ok := bytes.Cut(records, []byte(" "))
		n, err := strconv.Atoi(string(length))
		if !ok || err != nil || n <= len(length)+1 || n > len(records) {
			break
		}
		record := rest[:n-len(length)-1]
		records = records[n:]
		if value, ok := bytes.CutPrefix(record, []byte("size=")); ok {
			if size, err = strconv.ParseInt(strings.TrimSuffix(string(value), "\n"), 10, 64); err != nil {
				return -1
			}
		}
	}
	return size
}
