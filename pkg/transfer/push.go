// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package transfer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/internal/jitter"
	"github.com/aegis-oci/aegis-oci/pkg/internal/pacing"
)

// Destination is where a blob of unknown digest is sent.
type Destination interface {
	// Begin opens a session. An error that is ErrUnsupported says that the digest
	// has to be known.
	Begin(ctx context.Context) (Session, error)
	// Has asks for a blob of this digest and size.
	Has(ctx context.Context, d digest.Digest, size int64) (bool, error)
}

// Session is one upload, for one goroutine at a time. Any of its errors may be
// ErrLost, ErrOutOfStep, ErrUnsupported or ErrPiece; what else may pass is up to
// Options.Retryable.
type Session interface {
	// MinChunk is the fewest bytes of a piece that is not the last one.
	MinChunk() int64
	// Send sends size bytes, from offset of the blob on; open opens them, at each
	// call anew.
	Send(ctx context.Context, offset, size int64, open func() (io.ReadCloser, error)) error
	// Received asks how many bytes there are at the other end.
	Received(ctx context.Context) (int64, error)
	// Commit makes what was sent the blob d.
	Commit(ctx context.Context, d digest.Digest) error
	// Cancel forgets what was sent, also when ctx is over.
	Cancel(ctx context.Context)
}

var (
	// ErrLost means that a session cannot go on: it is gone, or no longer holds
	// what was sent. Another one can begin.
	ErrLost = errors.New("the upload has to begin anew")
	// ErrOutOfStep means that a server refuses to go on, as one does that holds another
	// number of bytes than it is asked to go on from.
	ErrOutOfStep = errors.New("the server does not go on with the upload")
	// ErrUnsupported means that a server takes no blob whose digest it is not told
	// beforehand.
	ErrUnsupported = errors.New("the server does not take uploads in this form")
	// ErrPiece means that a request was larger than the server takes.
	ErrPiece = errors.New("the server takes no request of this size")
	// ErrChanged means that a file, when it was read again after a cut, did not have the
	// bytes that were sent of it.
	ErrChanged = errors.New("the file had other bytes before")
)

// File is what is sent.
type File interface {
	// Size is that of the file as it was found, in bytes.
	Size() int64
	// Open opens it at an offset. Open and the reads at its end fail when it is no
	// longer the file that was found.
	Open(offset int64) (io.ReadCloser, error)
	// Check fails when it is no longer the file that was found.
	Check() error
}

const (
	// maxRestarts bounds how often a blob is sent from its beginning again, and
	// maxRefusals how often all of it is refused at the end.
	maxRestarts = 4
	maxRefusals = 2
	// maxInVain is how many bytes may be sent of which nothing arrives, or come that are
	// there already, if that is more than maxRestarts times the blob: the budget does not
	// count the time they take.
	maxInVain = 512 << 20
	// settlePause is how long a server has to take in what was on the way, settleTries
	// how often.
	settlePause = 100 * time.Millisecond
	settleTries = 20
	// smallPiece is what is tried where a whole file is too large for one request,
	// as behind many a proxy; half of it and so on after that, to leastPiece.
	smallPiece = 64 << 20
	leastPiece = 4 << 20
)

// PushOptions tune Push. The zero value is usable.
type PushOptions struct {
	Options // Stall has no meaning here
	// Digest is the file's, where it is known: a file that has another one is not
	// committed, and the error is a *DigestError. "" is one that is found out.
	Digest digest.Digest
	// Piece is the most bytes of one request. Zero is no bound.
	Piece int64
	// Throttle bounds the rate at which the file is sent; it may be nil.
	Throttle *Throttle
	// Pool counts what all blobs move together. Nil is a pool of this blob alone.
	Pool *Pool
	// Pace is shared by files that are pushed at the same time. Nil is nobody's.
	Pace *Pace
	// Moved hears of every byte sent, and negatively of those that have to be sent
	// again. No further byte is sent before it returns. Nil is nobody.
	Moved func(n int64)
}

// Pace keeps the largest of the files that are pushed at the same time from being the last
// for long. Its zero value is usable.
type Pace = pacing.Pace

// DigestError means that a file is not the one whose digest was known.
type DigestError struct{ Got, Want digest.Digest }

func (e *DigestError) Error() string { return fmt.Sprintf("its digest is %s, not %s", e.Got, e.Want) }

// Pushed is a blob that is in its place.
type Pushed struct {
	Digest digest.Digest
	// Sent is false when the blob turned out to be there already.
	Sent bool
}

// Push reads f once, hashes it while it is sent, and names the digest at the end.
// A connection that breaks is resumed where the server says it stands; a session
// that is lost is begun anew. While the network is much slower than the disk, and the
// digest is not known, a second reader hashes ahead, and the upload ends when the blob
// proves to be there. Nothing is committed when f changes. A session that is given up is
// cancelled.
func Push(ctx context.Context, dst Destination, f File, o PushOptions) (Pushed, error) {
	o.Options = o.withDefaults()
	if o.Pool == nil {
		o.Pool = NewPool(Limits{})
	}
	p := &push{dst: dst, file: f, o: o, front: newFront(f, o.Pool.hashes), since: o.Now(), piece: o.Piece}
	if o.Pace == nil {
		o.Pace = new(Pace)
	}
	p.pace = o.Pace.Begin(f.Size())
	defer p.pace.End()
	p.since0, p.moved0 = p.since, o.Pool.moved.Load()
	inner, cancel := context.WithCancelCause(ctx)
	p.ahead = newAhead(inner, cancel, p)
	done, err := p.run(inner)
	cancel(context.Canceled)
	p.ahead.wait()
	p.front.close()
	p.giveUp(ctx)
	return done, err
}

type push struct {
	dst     Destination
	file    File
	o       PushOptions
	front   *front
	session Session
	pace    *pacing.Runner
	piece   int64 // the most bytes of one request, zero for no bound
	ahead   *ahead

	// since0 is when it all began, moved0 what the pool had moved then.
	since0 time.Time
	moved0 int64
	// since is when the time without progress began, tries the tries in it, and best
	// the most bytes that the server has held in this session. cuts are the tries that
	// nothing arrived of before the connection broke, and inVain what all of them sent.
	since  time.Time
	tries  int
	best   int64
	cuts   int
	inVain int64
	// from is where the latest request went on, and flowed whether it sent anything.
	from     int64
	flowed   bool
	restarts int
	refusals int // of all, at the end
}

func (p *push) run(ctx context.Context) (Pushed, error) {
	for {
		d, err := p.step(ctx)
		if err == nil {
			p.session = nil
			return Pushed{Digest: d, Sent: true}, nil
		}
		final := p.judge(ctx)
		if final == nil {
			if final = p.recover(ctx, err); final != nil {
				final = cmp.Or(p.judge(ctx), final)
			}
		}
		var there *thereError
		switch {
		case errors.As(final, &there):
			return Pushed{Digest: there.digest}, nil
		case final != nil:
			return Pushed{}, final
		}
	}
}

// judge returns what lies behind a failed step when it is final.
func (p *push) judge(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return p.front.failure()
}

// step does what is left, as far as it goes.
func (p *push) step(ctx context.Context) (digest.Digest, error) {
	if p.session == nil {
		if err := p.moveTo(0); err != nil {
			return "", err
		}
		session, err := p.dst.Begin(ctx)
		if err != nil {
			return "", err
		}
		p.session = session
	}
	size := p.file.Size()
	for p.front.at() < size {
		offset := p.front.at()
		n := size - offset
		if p.piece > 0 {
			n = min(n, max(p.piece, p.session.MinChunk()))
		}
		if err := p.send(ctx, offset, n); err != nil {
			return "", err
		}
		p.progress(offset + n)
	}
	// Not before this is known does anything have a name.
	if err := p.file.Check(); err != nil {
		return "", p.front.fail(err)
	}
	d := p.front.digest()
	if want := p.o.Digest; want != "" && want != d {
		return "", p.front.fail(&DigestError{Got: d, Want: want})
	}
	if known := p.ahead.found(); known != "" && known != d {
		return "", p.front.fail(fmt.Errorf("the file has two digests: %s when it was read ahead, %s when it was sent", known, d))
	}
	return d, p.commit(ctx, d)
}

func (p *push) send(ctx context.Context, offset, n int64) error {
	body := func() (io.ReadCloser, error) {
		rc, err := p.front.open(offset, n, p)
		if err != nil {
			return nil, err
		}
		return p.o.Throttle.Reader(ctx, rc), nil
	}
	began := p.o.Now()
	p.from = offset
	err := p.session.Send(ctx, offset, n, body)
	if p.flowed = p.front.at() > offset; p.flowed {
		// The budget does not count time in which bytes flow.
		p.since = p.since.Add(p.o.Now().Sub(began))
	}
	if own := p.front.failure(); own != nil {
		// The transport's own error only says that the body could not be read.
		return own
	}
	if err == nil && p.front.at() != offset+n {
		return fmt.Errorf("%w: the server answered before the end", ErrLost)
	}
	return err
}

// commit names the digest. An answer that got lost leaves the blob in its place
// and the session gone.
func (p *push) commit(ctx context.Context, d digest.Digest) error {
	p.from, p.flowed = p.file.Size(), false
	err := p.session.Commit(ctx, d)
	if err == nil || ctx.Err() != nil || !(errors.Is(err, ErrLost) || errors.Is(err, ErrOutOfStep) || p.o.Retryable(err)) {
		return err
	}
	if there, asked := p.dst.Has(ctx, d, p.file.Size()); asked != nil || !there {
		return err
	}
	if errors.Is(err, ErrOutOfStep) {
		p.giveUp(ctx) // it is somebody else's
	}
	return nil
}

// recover waits and finds out where to go on, or returns the error to end with.
func (p *push) recover(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, ErrUnsupported):
		return err
	case errors.Is(err, ErrPiece):
		return p.smaller(ctx, err)
	case errors.Is(err, ErrLost):
		if err := p.restart(ctx, err); err != nil {
			return err
		}
		return p.wait(ctx, err)
	case !errors.Is(err, ErrOutOfStep) && !p.o.Retryable(err):
		return err
	}
	if err := p.wait(ctx, err); err != nil {
		return err
	}
	if p.session == nil {
		return nil
	}
	var answers interface{ Answered() bool }
	broken := !errors.As(err, &answers) || !answers.Answered()
	held, asked := p.received(ctx, broken || errors.Is(err, ErrOutOfStep))
	switch {
	case asked != nil && ctx.Err() != nil:
		return asked
	case asked != nil && p.o.Retryable(asked):
		// It has had its own time for that.
		return err
	case asked != nil, held > p.front.furthest(), held > p.front.at() && p.o.Digest != "":
		// A blob on its way from elsewhere cannot be read again with certainty, and its
		// hash at what was sent before the last step back is gone.
		return p.restart(ctx, err)
	case held == p.from && errors.Is(err, ErrOutOfStep):
		// It is not the offset that it does not like. Else it was still taking in what
		// an earlier request had sent before that broke.
		if held == p.file.Size() {
			if p.refusals++; p.refusals == maxRefusals {
				return err
			}
		}
		return p.restart(ctx, err)
	}
	if p.flowed && held <= p.from {
		if p.inVain += p.front.at() - held; p.inVain > max(maxInVain, maxRestarts*p.file.Size()) {
			return err
		}
		if broken {
			// A refusal of long requests can be lost in the reset that follows it.
			if p.cuts++; p.cuts > 1 {
				p.piece = cmp.Or(p.half(), p.piece)
			}
		}
	}
	p.progress(held)
	return p.moveTo(held)
}

// received asks how many bytes the server holds, and when that may move until two answers
// agree: after a connection broke it may still take in what was on the way, and would
// refuse what comes from an offset that has passed.
func (p *push) received(ctx context.Context, moves bool) (int64, error) {
	held, err := p.session.Received(ctx)
	for range settleTries {
		if err != nil || !moves || held >= p.front.at() {
			break
		}
		if err := p.o.Sleep(ctx, settlePause); err != nil {
			return 0, err
		}
		before := held
		if held, err = p.session.Received(ctx); held == before {
			break
		}
	}
	return held, err
}

// moveTo goes on at an offset that was sent before.
func (p *push) moveTo(offset int64) error {
	back := p.front.at() - offset
	if err := p.front.rewind(offset); err != nil {
		return err
	}
	p.moved(-back)
	p.pace.Left(p.file.Size() - offset)
	return nil
}

// moved tells that n bytes were sent, or have to be again when n is negative.
func (p *push) moved(n int64) {
	if p.o.Moved != nil && n != 0 {
		p.o.Moved(n)
	}
}

func (p *push) progress(held int64) {
	if held > p.best {
		p.best, p.since, p.tries, p.cuts, p.inVain = held, p.o.Now(), 0, 0, 0
	}
}

// restart gives the session up; the next step begins another one.
func (p *push) restart(ctx context.Context, err error) error {
	if p.restarts++; p.restarts > maxRestarts {
		return err
	}
	p.giveUp(ctx)
	return nil
}

// giveUp ends the session without the blob.
func (p *push) giveUp(ctx context.Context) {
	if p.session != nil {
		p.session.Cancel(ctx)
	}
	p.session, p.best = nil, 0
}

// smaller begins anew with smaller requests.
func (p *push) smaller(ctx context.Context, err error) error {
	next := p.half()
	if next == 0 {
		return err
	}
	p.piece = next
	p.giveUp(ctx)
	return nil
}

// half is the next smaller size of a request, zero where there is none.
func (p *push) half() int64 {
	least := int64(leastPiece)
	if p.session != nil {
		least = max(least, p.session.MinChunk())
	}
	next := int64(smallPiece)
	if p.piece > 0 {
		next = min(next, p.piece/2)
	}
	for next >= max(1, p.file.Size()) {
		next /= 2 // that was a request of the whole file
	}
	if next < least {
		return 0
	}
	return next
}

func (p *push) wait(ctx context.Context, err error) error {
	wait := retryWait(p.tries, err)
	if p.o.Now().Sub(p.since)+wait > p.o.Budget {
		return err
	}
	wait = max(wait, jitter.After(retryAfter(err), p.o.Budget-p.o.Now().Sub(p.since)))
	p.tries++
	p.o.Logger.LogAttrs(ctx, slog.LevelDebug, "upload retry",
		slog.Int64("offset", p.front.at()), slog.String("reason", err.Error()), slog.Duration("wait", wait))
	if p.o.OnRetry != nil {
		p.o.OnRetry(err)
	}
	return p.o.Sleep(ctx, wait)
}
