// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
)

// maxLine bounds one line, in bytes. Vault takes requests of at most 32 MiB and
// logs less of them than that; a line that is longer is counted and left out.
const maxLine = 32 << 20

// LogError means that a log could not be read to its end, or is none.
type LogError struct {
	Log    string
	Reason string
	Err    error
}

func (e *LogError) Error() string {
	s := "audit log " + e.Log + ": " + e.Reason
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *LogError) Unwrap() error { return e.Err }

// unzipped looks at the first bytes rather than at the name, which standard
// input does not have and rotation changes.
func unzipped(name string, r io.Reader) (*bufio.Reader, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, &LogError{Log: name, Reason: "it cannot be read", Err: err}
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, &LogError{Log: name, Reason: "it is not whole gzip", Err: err}
		}
		return bufio.NewReaderSize(z, 256<<10), nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), bytes.HasPrefix(magic, []byte("BZh")), bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X'}):
		return nil, &LogError{Log: name, Reason: "it is compressed with something else than gzip: unpack it into a pipe"}
	}
	return b, nil
}

// lines calls fn for every line of r, without its end. whole is false for text
// after the last line end: Vault may still be writing it. The slice is good
// until the next call. Lines over limit are counted and not passed on.
func lines(ctx context.Context, r *bufio.Reader, limit int, fn func(line []byte, whole bool) error) (long int, err error) {
	var line []byte
	for {
		if err := ctx.Err(); err != nil {
			return long, context.Cause(ctx)
		}
		part, err := r.ReadSlice('\n')
		over := len(line)+len(part) > limit
		if errors.Is(err, bufio.ErrBufferFull) && !over {
			line = append(line, part...)
			continue
		}
		if over {
			long++
			line = nil // give a long line's memory back
			if err = skipLine(r, err); err == nil {
				continue
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return long, fmt.Errorf("read: %w", err)
		}
		if !over {
			text, whole := part, err == nil
			if len(line) > 0 {
				line = append(line, part...)
				text = line
			}
			if err := fn(bytes.TrimSpace(text), whole); err != nil {
				return long, err
			}
			line = line[:0]
		}
		if err != nil {
			return long, nil
		}
	}
}

// skipLine reads up to the end of the line that the last read, which gave err,
// was part of.
func skipLine(r *bufio.Reader, err error) error {
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = r.ReadSlice('\n')
	}
	return err
}
