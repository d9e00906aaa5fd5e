// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
)

// lockPoll is how often a held lock is tried again. Advisory locks cannot be
// waited for and cancelled at once.
const lockPoll = 50 * time.Millisecond

// lockNotice is how long a lock is waited for in silence.
const lockNotice = 2 * time.Second

// takeLock takes the destination's lock, a file in the staging directory. The
// holder removes the file before it lets go, so a lock counts only while the
// locked file still has its name.
func (s *site) takeLock(ctx context.Context, warn func(string)) error {
	l := flock.New(filepath.Join(s.stagingPath(), lockName),
		flock.SetFlag(os.O_CREATE|os.O_RDWR|rootfile.NoFollow), flock.SetPermissions(0o600))
	waits := time.AfterFunc(lockNotice, func() { warn(fmt.Sprintf("another process is filling %s; waiting until it is done", s.dst)) })
	ok, err := l.TryLockContext(ctx, lockPoll)
	waits.Stop()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errMoved
	case ctx.Err() != nil && ok:
		return errors.Join(context.Cause(ctx), l.Unlock())
	case ctx.Err() != nil:
		return fmt.Errorf("waiting for another process that is filling %s: %w", s.dst, context.Cause(ctx))
	case err != nil || !ok:
		return fmt.Errorf("lock %s: %w", s.dst, err)
	}
	s.lock = l
	locked, err := l.Stat()
	if err != nil {
		return err
	}
	named, err := s.root.Lstat(lockName)
	if errors.Is(err, fs.ErrNotExist) {
		s.unlock()
		return errMoved
	}
	if err != nil {
		return err
	}
	if !os.SameFile(locked, named) {
		s.unlock()
		return errMoved
	}
	return nil
}

func (s *site) unlock() {
	if s.lock != nil {
		s.lock.Unlock() //nolint:errcheck // closing the file lets go in any case
		s.lock = nil
	}
}
