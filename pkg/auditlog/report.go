// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Status is what a log says of one signature.
type Status string

const (
	// Proven: the log holds this very signature.
	Proven Status = "proven"
	// Hinted: the request that the signature's unsigned hint names is a sign
	// request of the log, and whether it made this signature could not be told.
	Hinted Status = "hint"
	// Unexplained: nothing in the log made it.
	Unexplained Status = "unexplained"
	// Undecided: it could not be told, and no hint says anything.
	Undecided Status = "undecided"
)

// Report is what explains what.
type Report struct {
	// Outcome is "explained", "unexplained" or "undecided". The second beats the
	// third: what is listed as unexplained is so.
	Outcome string `json:"outcome"`
	// Proof is how hashes were compared: filled by whoever gave the Hasher.
	Proof      string      `json:"proof"`
	Signatures []Explained `json:"signatures"`
	// Unexplained are signatures that Transit made and that were not found.
	Unexplained []Event `json:"unexplained"`
	// Unanswered are sign requests without the entry of their answer: a signature
	// may have been made.
	Unanswered []Event    `json:"unanswered"`
	Log        LogSummary `json:"log"`
}

// Explained is one signature of a registry.
type Explained struct {
	Reference string   `json:"reference"`
	Tags      []string `json:"tags"`
	Digest    string   `json:"digest"`
	Format    string   `json:"format"`
	Status    Status   `json:"status"`
	// Reason says why it could not be told, or that several requests made it.
	Reason string `json:"reason,omitempty"`
	// RequestID is the unsigned hint.
	RequestID string `json:"requestID,omitempty"`
	// Event made it (Proven) or may have (Hinted).
	Event *Event `json:"event,omitempty"`
}

// LogSummary is what was read.
type LogSummary struct {
	Files int `json:"files"`
	Lines int `json:"lines"`
	// SignRequests are answered requests to sign, refused ones too; Signatures is
	// what they made.
	SignRequests int `json:"signRequests"`
	Signatures   int `json:"signatures"`
	// From and To are the first and last time of a sign request.
	From time.Time `json:"from,omitzero"`
	To   time.Time `json:"to,omitzero"`
	// Malformed and LongLines could not be read and might have been sign requests.
	Malformed int `json:"malformed"`
	LongLines int `json:"longLines"`
	// Foreign are signatures hashed under another salt: they cannot be compared.
	Foreign int `json:"foreign"`
	// Unlisted are unexplained signatures beyond those that are listed.
	Unlisted int `json:"unlisted"`
}

func (l *LogSummary) span(text string) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return
	}
	t = t.UTC()
	if l.From.IsZero() || t.Before(l.From) {
		l.From = t
	}
	if t.After(l.To) {
		l.To = t
	}
}

// Report judges after all logs were read. A signature whose hint named a wrong
// version is tried under the others that the log shows; errors are the Hasher's.
func (m *Matcher) Report(ctx context.Context) (Report, error) {
	if err := m.tryOthers(ctx); err != nil {
		return Report{}, err
	}
	r := Report{Signatures: []Explained{}, Unexplained: []Event{}, Unanswered: []Event{}, Log: m.log}
	doubt := m.gaps()
	found := false
	for i := range m.sigs {
		e := m.explain(&m.sigs[i])
		r.Signatures = append(r.Signatures, e)
		switch e.Status {
		case Unexplained:
			found = true
		case Hinted, Undecided:
			doubt = true
		}
	}
	if m.log.Unlisted > 0 {
		found, doubt = found || m.canTell(), true
	}
	seen := make(map[eventID]bool)
	for _, ev := range m.unmatched {
		if m.proven[ev.id()] || seen[ev.id()] || m.hintedBy(ev) {
			continue
		}
		seen[ev.id()] = true
		r.Unexplained = append(r.Unexplained, ev)
		found, doubt = found || m.comparable(ev), true
	}
	for _, id := range slices.Sorted(maps.Keys(m.pending)) {
		if len(r.Unanswered) < m.opts.MaxList {
			r.Unanswered = append(r.Unanswered, m.pending[id])
		}
	}
	switch {
	case found:
		r.Outcome = "unexplained"
	case doubt:
		r.Outcome = "undecided"
	default:
		r.Outcome = "explained"
	}
	return r, nil
}

// comparable reports that an event whose signature was not found is explained by
// none of the signatures given.
func (m *Matcher) comparable(ev Event) bool {
	return !hashed(ev.value) || m.opts.Hash != nil && !ev.foreign
}

// canTell is comparable for all events of the log.
func (m *Matcher) canTell() bool {
	return m.hashed == 0 || m.opts.Hash != nil && m.log.Foreign == 0
}

// gaps reports that Transit may have made signatures which what was read of the
// log does not show.
func (m *Matcher) gaps() bool {
	return m.log.Malformed > 0 || m.log.LongLines > 0 || m.overflow || len(m.pending) > 0
}

// hintedBy keeps what cannot be compared, and a hint names, from being listed a
// second time.
func (m *Matcher) hintedBy(ev Event) bool {
	return !m.comparable(ev) && len(m.hints[ev.RequestID]) > 0
}

func (m *Matcher) explain(s *tracked) Explained {
	e := Explained{Reference: s.Reference, Tags: s.Tags, Digest: s.Digest, Format: s.Format, RequestID: s.RequestID}
	if e.Tags == nil {
		e.Tags = []string{}
	}
	switch {
	case len(s.events) > 0:
		// Ed25519 and PKCS #1 v1.5 sign a message alike each time they are asked.
		ev := slices.MinFunc(s.events, func(a, b Event) int { return cmp.Compare(a.Time, b.Time) })
		ev.KeyVersion = s.by
		e.Status, e.Event = Proven, &ev
		switch n := len(s.events); {
		case n == maxEvents:
			e.Reason = strconv.Itoa(n) + " requests or more made this very signature"
		case n > 1:
			e.Reason = strconv.Itoa(n) + " requests made this very signature; the first is shown"
		}
	case s.Problem != "":
		e.Status, e.Reason = Undecided, s.Problem
	case m.canTell() && m.log.Unlisted > 0:
		e.Status, e.Reason = Undecided, "more signatures are in the log than are kept: name the key"
	case m.canTell() && m.gaps():
		e.Status, e.Reason = Undecided, "it is not in what could be read of the log"
	case m.canTell():
		e.Status = Unexplained
	case s.hinted != nil:
		e.Status, e.Event, e.Reason = Hinted, s.hinted, m.whyNot()
	default:
		e.Status, e.Reason = Undecided, m.whyNot()+", and no hint names a request of the log"
	}
	return e
}

func (m *Matcher) whyNot() string {
	if m.opts.Hash != nil {
		return "the log, or a part of it, was hashed under another salt"
	}
	return "the audit device's hash of the signature could not be had"
}

// tryOthers hashes what is still open under the versions that the log shows.
// There are few: a key's versions.
func (m *Matcher) tryOthers(ctx context.Context) error {
	byValue := maps.Clone(m.matched)
	for _, ev := range m.unmatched {
		byValue[ev.value] = ev
	}
	shown := make(map[int]bool)
	for _, ev := range byValue {
		shown[ev.KeyVersion] = true
	}
	delete(shown, 0)
	versions := slices.Sorted(maps.Keys(shown))
	for i := range m.sigs {
		s := &m.sigs[i]
		for _, v := range versions {
			if len(s.events) > 0 || len(s.Bytes) == 0 {
				break
			}
			if slices.Contains(s.tried, v) {
				continue
			}
			values, err := m.try(ctx, i, v)
			if err != nil {
				return err
			}
			for _, value := range values {
				if ev, ok := byValue[value]; ok {
					m.prove(ev, []version{{i, v}})
				}
			}
		}
	}
	return nil
}
