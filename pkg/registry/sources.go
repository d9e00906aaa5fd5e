// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// sources are the places that are asked for what has a digest: mirrors in their
// order, then the registry.
type sources struct {
	repo    *Repository // which they belong to
	origin  *Repository // the same, asked once at a time
	mirrors []*place

	mu sync.Mutex
	// without are the mirrors that do not have a digest, or not whole; gave are
	// those that a blob's bytes came from.
	without, gave map[digest.Digest][]*place
	// reasons are why mirrors failed last, by the digest.
	reasons map[digest.Digest]map[*place]string
	// words are the registry's last ones, by the digest, while mirrors are asked again;
	// refused is one about the credentials, which is about all. inVain is since when they
	// are, without anything coming of it.
	words   map[digest.Digest]word
	refused word
	inVain  time.Time
	// busy is what the registry said last, while it is not to be asked, and until when.
	busy  *Error
	until time.Time
}

// place is a repository at a mirror.
type place struct {
	*mirror
	repo *Repository // asked once at a time
	list *Repository // the same, for lists: asked again for a short while
}

func newSources(repo, origin *Repository) *sources {
	return &sources{repo: repo, origin: origin,
		without: make(map[digest.Digest][]*place), gave: make(map[digest.Digest][]*place),
		reasons: make(map[digest.Digest]map[*place]string), words: make(map[digest.Digest]word)}
}

// all are the repositories whose requests are counted with those of s.repo.
func (s *sources) all() []*Repository {
	if s == nil {
		return nil
	}
	list := []*Repository{s.origin}
	for _, p := range s.mirrors {
		list = append(list, p.repo, p.list)
	}
	return list
}

// small fetches what is read whole and checked by fetch itself.
func (r *Repository) small(ctx context.Context, d digest.Digest, fetch func(context.Context, *Repository) ([]byte, error)) ([]byte, error) {
	if r.sources == nil {
		got, err := fetch(ctx, r)
		if err != nil {
			return nil, err
		}
		return got, nil
	}
	var got []byte
	err := r.try(ctx, func(ctx context.Context) (bool, error) {
		return false, r.sources.ask(ctx, d, func(from *Repository, _ *place) (err error) {
			got, err = fetch(ctx, from)
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	r.sources.came()
	return got, nil
}

// stream opens bytes of d; open says how many there have to be. With mirrors each
// source is asked once: the reader of the stream asks again when all have failed.
func (r *Repository) stream(ctx context.Context, d digest.Digest, open func(context.Context, *Repository) (body io.ReadCloser, n int64, err error)) (io.ReadCloser, error) {
	if r.sources == nil {
		body, _, err := open(ctx, r)
		return body, err
	}
	var body io.ReadCloser
	err := r.sources.ask(ctx, d, func(from *Repository, p *place) error {
		if p == nil {
			var err error
			if body, _, err = open(ctx, from); err == nil {
				r.sources.note(r.sources.gave, d, nil) // the origin's own
			}
			return err
		}
		attempt, dog := watch(ctx, from.client.options.AnswerTimeout)
		dog.timer.Stop() // until somebody reads
		past := p.past()
		got, n, err := open(attempt, from)
		if err != nil {
			dog.end()
			return err
		}
		r.sources.note(r.sources.gave, d, p)
		body = &mirrored{ReadCloser: got, s: r.sources, from: p, digest: d, past: past, left: n, ctx: ctx, dog: dog}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return body, nil
}

// resolve gets a manifest by its digest.
func (s *sources) resolve(ctx context.Context, d digest.Digest) (Pinned, error) {
	const op = "resolve"
	var pinned Pinned
	err := s.repo.try(ctx, func(ctx context.Context) (bool, error) {
		return false, s.ask(ctx, d, func(from *Repository, p *place) error {
			got, err := from.getManifest(ctx, op, s.repo.ref.String(), d.String())
			if err != nil {
				return err
			}
			if p != nil && digest.FromBytes(got.bytes) == d && !saysType(got) {
				// Then the mirror's header alone would decide what was signed.
				return newError(op, s.repo.ref.String(), NotFound, "the manifest does not say its media type, and a mirror's word is not taken")
			}
			pinned, err = s.repo.pin(op, "", got)
			return err
		})
	})
	return pinned, err
}

// saysType reports that the manifest names its media type itself, and the same.
func saysType(m manifest) bool {
	var own struct {
		MediaType string `json:"mediaType"`
	}
	return json.Unmarshal(m.bytes, &own) == nil && own.MediaType == m.mediaType
}

// ask has each source tried, until one has what was asked for: mirrors that are
// well, the registry, and then those that have failed a while ago. Who has only the
// whole has not failed. What the registry says is the error, and a mirror that may be well
// again in a moment makes it one that may pass.
func (s *sources) ask(ctx context.Context, d digest.Digest, try func(*Repository, *place) error) error {
	well, ill := s.usable(d)
	said := make(map[*place]error)
	for _, p := range well {
		past := p.past()
		err := try(p.repo, p)
		if err == nil || errors.Is(err, ErrNoRanges) {
			p.answered()
			return err
		}
		if ctx.Err() != nil {
			return err
		}
		said[p] = err
		s.next(p, d, err, past)
	}
	err := s.lastWord(d)
	if err == nil {
		err = s.askOrigin(try)
	}
	if err == nil || errors.Is(err, ErrNoRanges) || errors.Is(err, errWhole) || ctx.Err() != nil {
		return err
	}
	for _, p := range ill {
		past := p.past()
		again := try(p.repo, p)
		if again == nil || errors.Is(again, ErrNoRanges) {
			p.answered()
			return again
		}
		if ctx.Err() != nil {
			return err
		}
		said[p] = again
		s.next(p, d, again, past)
	}
	return s.joint(d, err, said)
}

// askOrigin asks the registry, unless it has said to come later.
func (s *sources) askOrigin(try func(*Repository, *place) error) error {
	now := s.repo.client.options.Now()
	s.mu.Lock()
	busy, left := s.busy, s.until.Sub(now)
	s.mu.Unlock()
	if busy != nil && left > 0 {
		e := *busy
		e.retryAfter = left
		return &e
	}
	err := try(s.origin, nil)
	var e *Error
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy = nil; errors.As(err, &e) && e.retryAfter > 0 && e.Retryable() {
		// Not what is said of one digest, such as that it is not there.
		s.busy, s.until = e, s.repo.client.options.Now().Add(e.retryAfter)
	}
	return err
}

// joint is the registry's error, with what mirrors said, and whether and after which time
// somebody may be asked for d again: it, or a mirror. A mirror whose failure passes is asked
// when it said, and not only after the time for which it is left alone while there are others.
// One of which nothing was heard in the whole run changes no answer of the registry's.
func (s *sources) joint(d digest.Digest, err error, said map[*place]error) error {
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	j := *e
	j.mirrors = s.complaints(d)
	well, ill := s.usable(d)
	for _, p := range append(well, ill...) {
		var own *Error
		passes := errors.As(said[p], &own) && own.Retryable() && (own.Answered() || !e.Answered() || p.hasAnswered())
		wait := p.rests()
		if passes {
			wait = own.retryAfter
		}
		switch {
		case j.Retryable():
			j.retryAfter = min(j.retryAfter, wait)
		case passes && s.again(d, e, wait):
			j.again, j.retryAfter = true, wait
		}
	}
	return &j
}

// again reports whether d may be asked of mirrors once more after wait, though the registry
// has said its last word: for as long as one operation may fail, and together for all, since
// anything came from a mirror. The answer is kept for that: a password that the registry has
// refused is not sent to it each time.
func (s *sources) again(d digest.Digest, e *Error, wait time.Duration) bool {
	if !e.Answered() {
		return true
	}
	o := s.repo.client.options
	now := o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inVain.IsZero() {
		s.inVain = now
	}
	if now.Sub(s.inVain) > o.Retry.Budget {
		return false
	}
	w := word{e, now.Add(wait + maxBackoff)}
	if s.words[d] = w; e.Kind == Unauthorized {
		s.refused = w
	}
	return true
}

// word is what the registry has answered, and until when it is not asked again.
type word struct {
	err   *Error
	until time.Time
}

// lastWord is the registry's answer about d, if it has not changed.
func (s *sources) lastWord(d digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.repo.client.options.Now()
	for _, w := range []word{s.words[d], s.refused} {
		if now.Before(w.until) {
			return w.err
		}
	}
	return nil
}

// came notes that a mirror has sent something.
func (s *sources) came() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inVain = time.Time{}
}

// maxComplaints bounds how many mirrors an error names.
const maxComplaints = 3

// complaints says of each mirror why it did not give d.
func (s *sources) complaints(d digest.Digest) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	more := 0
	for _, p := range s.mirrors {
		switch reason, ok := s.reasons[d][p]; {
		case ok && len(list) == maxComplaints:
			more++
		case ok:
			list = append(list, "mirror "+p.name+": "+reason)
		}
	}
	if more > 0 {
		list = append(list, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(list, "; ")
}

// usable lists the mirrors that may have d: those that are well, and those that
// are to be left alone for a while.
func (s *sources) usable(d digest.Digest) (well, ill []*place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.mirrors {
		if slices.Contains(s.without[d], p) {
			continue
		}
		switch p.state() {
		case fit:
			well = append(well, p)
		case resting:
			ill = append(ill, p)
		}
	}
	return well, ill
}

// note adds p to one of the lists of s.
func (s *sources) note(list map[digest.Digest][]*place, d digest.Digest, p *place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(list[d], p) {
		list[d] = append(list[d], p)
	}
}

// next is failed where another source is asked at once. A body that broke off is counted by
// who goes on with it.
func (s *sources) next(p *place, d digest.Digest, err error, past int) {
	if !errors.Is(err, errWhole) {
		s.repo.retries.Add(1)
	}
	s.failed(p, d, err, past)
}

// failed takes note of what a mirror did wrong, if it did; past is from before it was asked.
func (s *sources) failed(p *place, d digest.Digest, err error, past int) {
	if errors.Is(err, errWhole) {
		return
	}
	var e *Error
	if errors.As(err, &e) && e.Answered() {
		p.answered()
	}
	s.mu.Lock()
	if s.reasons[d] == nil {
		s.reasons[d] = make(map[*place]string)
	}
	s.reasons[d][p] = mirrorsReason(err)
	s.mu.Unlock()
	switch {
	case errors.As(err, &e) && e.lied:
		p.lied(fmt.Sprintf("it sent other bytes than %s", d))
	case errors.As(err, &e) && (e.Kind == NotFound || e.Kind == Corrupt || e.Kind == TooLarge):
		s.note(s.without, d, p)
		p.complain(e.Kind.String(), "does not have "+d.String()+" as it should be", err)
	default:
		p.fail(err, past)
	}
}

// Doubt says that the bytes of d that OpenBlob and OpenRange gave, since the last
// Doubt, have another digest; whole says that they were all of it. Mirrors among
// their sources are not asked again: for anything when the bytes were all of one of
// them, else for d, for nobody knows whose were wrong. It reports whether there was one,
// so that another try gets bytes from elsewhere.
func (r *Repository) Doubt(d digest.Digest, whole bool) bool {
	if r.sources == nil {
		return false
	}
	s := r.sources
	s.mu.Lock()
	gave := s.gave[d]
	delete(s.gave, d)
	s.mu.Unlock()
	one := whole && len(gave) == 1
	gave = slices.DeleteFunc(gave, func(p *place) bool { return p == nil })
	for _, p := range gave {
		r.retries.Add(1)
		if one {
			p.lied(fmt.Sprintf("it sent other bytes than %s", d))
			continue
		}
		s.note(s.without, d, p)
		p.complain(Corrupt.String(), "may have sent other bytes than "+d.String(), nil)
	}
	return len(gave) > 0
}

// Mirrors are the repositories at mirrors: at those that are well, or at all but
// those that lied. What they list is for accepting a signature, and never for
// missing one.
func (r *Repository) Mirrors(all bool) []*Repository {
	if r.sources == nil {
		return nil
	}
	places, ill := r.sources.usable("")
	if all {
		places = append(places, ill...)
	}
	list := make([]*Repository, len(places))
	for i, p := range places {
		list[i] = p.list
	}
	return list
}

// MirrorsBack lists the mirrors, as Mirrors does, that are left alone and have answered in
// this run.
func (r *Repository) MirrorsBack() []*Repository {
	if r.sources == nil {
		return nil
	}
	var list []*Repository
	_, ill := r.sources.usable("")
	for _, p := range ill {
		if p.hasAnswered() {
			list = append(list, p.list)
		}
	}
	return list
}

// MirrorReason says which mirror r is, one of Mirrors, and what err says of it.
func (r *Repository) MirrorReason(err error) string {
	return "mirror " + r.base.Scheme + "://" + r.base.Host + r.root + ": " + mirrorsReason(err)
}

// mirrored is a blob's bytes from a mirror. A silent, dripping, broken or short
// one fails in a way that has its reader go on from another source.
type mirrored struct {
	io.ReadCloser
	s      *sources
	from   *place
	digest digest.Digest
	past   int // from before it was opened
	left   int64
	came   bool // anything
	ctx    context.Context
	dog    *watchdog
	waited time.Duration // for the bytes counted in slow
	slow   int64
}

// dripping is the fewest bytes that have to come in the time for which a mirror
// may be silent.
const dripping = 8 << 10

func (m *mirrored) Read(p []byte) (int, error) {
	o := m.from.client.options
	m.dog.allow(o.AnswerTimeout)
	began := o.Now()
	n, err := m.ReadCloser.Read(p)
	m.dog.timer.Stop()
	if n > 0 && !m.came {
		m.came = true
		m.s.came()
	}
	m.left -= int64(n)
	m.slow += int64(n)
	if m.waited += o.Now().Sub(began); m.slow >= dripping {
		m.waited, m.slow = 0, 0
	}
	switch {
	case m.left <= 0:
		m.from.worked()
		return n, err
	case err == io.EOF:
		err = m.fault("it ends early")
		m.s.note(m.s.without, m.digest, m.from)
	case err == nil && m.waited > o.AnswerTimeout:
		err = m.fault("it sends next to nothing")
	}
	if err != nil && m.ctx.Err() == nil {
		m.s.failed(m.from, m.digest, err, m.past)
	}
	return n, err
}

// Ranges is blobBody's.
func (m *mirrored) Ranges() bool {
	b, ok := m.ReadCloser.(*blobBody)
	return ok && b.Ranges()
}

// Part is blobBody's. What goes wrong there is no failure of the mirror: its stream goes on.
func (m *mirrored) Part(ctx context.Context, offset, end int64) (io.ReadCloser, error) {
	b, ok := m.ReadCloser.(*blobBody)
	if !ok {
		return nil, ErrNoRanges
	}
	return b.Part(ctx, offset, end)
}

func (m *mirrored) fault(detail string) *Error {
	return newError("fetch blob", m.from.repo.Name()+"@"+m.digest.String(), Unreachable, "%s", detail)
}

func (m *mirrored) Close() error {
	err := m.ReadCloser.Close()
	m.dog.end()
	return err
}
