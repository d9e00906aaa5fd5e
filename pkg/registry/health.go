// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// health is whether a mirror is asked.
type health struct {
	now  func() time.Time
	warn func(string)

	mu       sync.Mutex
	bad      bool
	heard    bool // it has answered
	failures int
	events   int       // that let it rest
	until    time.Time // when it is asked again
	said     []string  // kinds of complaint that were made
}

type state int

const (
	fit state = iota
	resting
	useless
)

// A mirror that fails rests for firstRest, and for twice as long with each further
// failure, at most maxRest.
const (
	firstRest = 10 * time.Second
	maxRest   = 2 * time.Minute
)

func (h *health) state() state {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.bad:
		return useless
	case h.now().Before(h.until):
		return resting
	}
	return fit
}

// rests is for how long the mirror is still left alone.
func (h *health) rests() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, h.until.Sub(h.now()))
}

func (h *health) worked() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failures, h.until = 0, time.Time{}
}

// answered notes that the mirror did, whatever it said.
func (h *health) answered() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.heard = true
}

// hasAnswered reports whether it did in this run.
func (h *health) hasAnswered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.heard
}

// past is what was known of the mirror when it was asked.
func (h *health) past() (events int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.events
}

// fail lets the mirror rest; past is from before it was asked. What fails while it rests, or
// was begun before it failed last, such as one of several connections that were cut together,
// is no further failure.
func (m *mirror) fail(err error, past int) {
	var e *Error
	kind, wait := "failed", time.Duration(0)
	if errors.As(err, &e) {
		kind, wait = e.Kind.String(), e.retryAfter
		if e.Kind == Unavailable && e.Status == http.StatusServiceUnavailable {
			kind = "busy"
		}
	}
	m.mu.Lock()
	now := m.now()
	if past == m.events && !now.Before(m.until) {
		rest := maxRest
		if m.failures < 5 {
			rest = min(maxRest, firstRest<<m.failures)
		}
		m.failures++
		m.events++
		wait = max(rest, wait)
	}
	if until := now.Add(wait); until.After(m.until) {
		m.until = until
	}
	rests := max(0, m.until.Sub(now)).Round(time.Second)
	m.mu.Unlock()
	if rests > 0 {
		m.complain(kind, "left alone for "+rests.String(), err)
	}
}

// lied ends the use of the mirror.
func (m *mirror) lied(reason string) {
	m.mu.Lock()
	before := m.bad
	m.bad = true
	m.mu.Unlock()
	if !before {
		m.warn("mirror " + m.name + ": not asked again in this run: " + reason)
	}
}

// complain warns once of each kind.
func (m *mirror) complain(kind, what string, err error) {
	m.mu.Lock()
	before := slices.Contains(m.said, kind)
	m.said = append(m.said, kind)
	m.mu.Unlock()
	if before {
		return
	}
	text := "mirror " + m.name + ": " + what
	if err != nil {
		text += ": " + mirrorsReason(err)
	}
	m.warn(text + "; going on from the next source")
}

// mirrorsReason is what is wrong with a mirror: the texts of errors are about a registry, and
// name the one that was asked for.
func mirrorsReason(err error) string {
	text := err.Error()
	var (
		e      *Error
		config *ConfigError
	)
	switch {
	case errors.As(err, &e):
		text = e.reason()
	case errors.As(err, &config):
		text = config.Error()
	}
	return clip(scrubText(strings.ReplaceAll(text, "the registry", "the mirror")), 200)
}
