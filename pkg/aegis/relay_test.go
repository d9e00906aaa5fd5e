// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// opens counts the bodies of a blob that were opened and are open.
type opens struct {
	content     []byte
	total, open atomic.Int64
}

type openBody struct {
	io.Reader
	o *opens
}

func (b *openBody) Close() error { b.o.open.Add(-1); return nil }

func (o *opens) relay() *relay {
	return &relay{desc: ocispec.Descriptor{Size: 100}, open: func(offset int64) (io.ReadCloser, error) {
		o.total.Add(1)
		o.open.Add(1)
		return &openBody{bytes.NewReader(o.content[offset:]), o}, nil
	}}
}

// read reads n bytes from offset on and closes the body.
func read(t *testing.T, r *relay, offset, n int64) {
	t.Helper()
	rc, err := r.Open(offset)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, rc, n); err != nil {
		t.Error(err)
	}
	if err := errors.Join(rc.Close(), rc.Close()); err != nil {
		t.Error(err)
	}
}

func TestARelayGoesOnWithWhatIsOpen(t *testing.T) {
	o := &opens{content: make([]byte, 100)}
	r := o.relay()
	read(t, r, 0, 30)
	if read(t, r, 30, 30); o.total.Load() != 1 || o.open.Load() != 1 {
		t.Errorf("%d were opened, %d are open", o.total.Load(), o.open.Load())
	}
	if read(t, r, 20, 40); o.total.Load() != 2 || o.open.Load() != 1 {
		t.Errorf("back: %d were opened, %d are open", o.total.Load(), o.open.Load())
	}
	if read(t, r, 60, 40); o.total.Load() != 2 || o.open.Load() != 0 {
		t.Errorf("at the end: %d were opened, %d are open", o.total.Load(), o.open.Load())
	}
}

func TestARelayHoldsNothingForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &opens{content: make([]byte, 100)}
		r := o.relay()
		if read(t, r, 0, 30); o.open.Load() != 1 {
			t.Fatalf("%d are open", o.open.Load())
		}
		time.Sleep(keptFor + 1)
		synctest.Wait()
		if o.open.Load() != 0 {
			t.Error("it is open after its time")
		}
		read(t, r, 30, 30)
		late, err := r.Open(10)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.Close(), late.Close()); err != nil || o.open.Load() != 0 || o.total.Load() != 3 {
			t.Errorf("%v; %d were opened, %d are open", err, o.total.Load(), o.open.Load())
		}
	})
}

func TestARelayNoticesAnEarlyEnd(t *testing.T) {
	o := &opens{content: make([]byte, 60)}
	r := o.relay()
	rc, err := r.Open(0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, rc)
	var wrong *model.ContentError
	if !errors.As(err, &wrong) || n != 60 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := errors.Join(rc.Close(), r.Close()); err != nil || o.open.Load() != 0 {
		t.Errorf("%v, %d are open", err, o.open.Load())
	}
}
