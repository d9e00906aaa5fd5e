// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// served is a request's body as net/http's server has it once it answers.
type served struct {
	io.Reader
	closed bool
}

func (s *served) Read(p []byte) (int, error) {
	if s.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	return s.Reader.Read(p)
}

func (s *served) Close() error {
	s.closed = true
	return nil
}

// The proxy's transport looks for more than the announced length. When the answer
// was quicker than that, it must not take the closed body for a failure.
func TestABodyReadWholeEndsEvenWhenItIsClosed(t *testing.T) {
	var count atomic.Int64
	inner := &served{Reader: strings.NewReader("12345")}
	body := &countedBody{ReadCloser: inner, count: &count, left: 1 << 20, unread: 5}
	if _, err := io.ReadFull(body, make([]byte, 5)); err != nil || count.Load() != 5 {
		t.Fatalf("%d bytes, %v", count.Load(), err)
	}
	_ = inner.Close()
	if n, err := body.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	part := &countedBody{ReadCloser: &served{Reader: strings.NewReader("12345")}, count: &count, left: 1 << 20, unread: 5}
	_, _ = io.ReadFull(part, make([]byte, 4))
	_ = part.Close()
	if _, err := part.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
		t.Errorf("before the end: %v", err)
	}
}
