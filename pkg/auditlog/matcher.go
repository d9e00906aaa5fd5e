// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package auditlog

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
)

const (
	// versionsTried is how many versions are tried for a signature that no hint
	// gives a version for.
	versionsTried = 8
	// maxVersion is more than any key has, and keeps a forged hint short.
	maxVersion = 1 << 30
	// maxPending bounds the requests that wait for their answer's entry, in both
	// directions: files may be given in any order.
	maxPending = 1 << 16
	// maxProven and maxEvents bound what is kept of requests that made one
	// signature over and over.
	maxProven  = 1 << 18
	maxEvents  = 100
	defaultMax = 1000
)

// Signature is one that was found in a registry. Nothing of it is trusted.
type Signature struct {
	// Reference is what is signed, "registry/repository@digest".
	Reference string
	// Tags are the names under which it was found.
	Tags []string
	// Digest is that of the signature's own manifest.
	Digest string
	Format string
	// Bytes are the primitive signature as Transit encoded it (ASN.1 for ECDSA).
	Bytes []byte
	// KeyVersion and RequestID are unsigned hints, zero values for none.
	KeyVersion int
	RequestID  string
	// Problem says why there are no Bytes.
	Problem string
}

func (s Signature) value(version int) string {
	return "vault:v" + strconv.Itoa(version) + ":" + base64.StdEncoding.EncodeToString(s.Bytes)
}

// Hasher returns what an audit device logs for value: sys/audit-hash/DEVICE, or
// Salt where the device's salt is known.
type Hasher func(ctx context.Context, value string) (string, error)

// Key names a Transit key of the log.
type Key struct{ Namespace, Mount, Name string }

// Options of a Matcher.
type Options struct {
	// Hash is needed for a proof where the log holds hashes. Nil leaves hints.
	Hash Hasher
	// Keys limits the sign requests that want an explanation. None means all.
	Keys []Key
	// MaxList bounds the events that are kept and listed without a signature, and
	// with it the memory. Zero means 1000.
	MaxList int

	maxLine int // for tests
}

// Matcher joins signatures and logs. It is not safe for concurrent use.
type Matcher struct {
	opts  Options
	sigs  []tracked
	index map[string][]version // by logged value
	hints map[string][]int     // by request ID

	log       LogSummary
	hashed    int             // events whose signature is a hash
	known     map[string]bool // hashes of texts that sign requests have
	proven    map[eventID]bool
	matched   map[string]Event // proven events by logged value
	unmatched []Event
	pending   map[string]Event
	answered  map[string]bool
	overflow  bool
}

type tracked struct {
	Signature
	tried  []int
	events []Event // proven
	by     int     // the version that was proven
	hinted *Event
}

type version struct{ sig, version int }

// New prepares a Matcher for sigs. It hashes every signature under the version
// of its hint, or under versions 1 to 8; an error is the Hasher's.
func New(ctx context.Context, sigs []Signature, o Options) (*Matcher, error) {
	if o.MaxList <= 0 {
		o.MaxList = defaultMax
	}
	if o.maxLine <= 0 {
		o.maxLine = maxLine
	}
	m := &Matcher{
		opts: o, index: make(map[string][]version), hints: make(map[string][]int),
		proven: make(map[eventID]bool), matched: make(map[string]Event), pending: make(map[string]Event), answered: make(map[string]bool),
	}
	if err := m.learn(ctx); err != nil {
		return nil, err
	}
	for i, s := range sigs {
		m.sigs = append(m.sigs, tracked{Signature: s})
		if s.RequestID != "" {
			m.hints[s.RequestID] = append(m.hints[s.RequestID], i)
		}
		first, last := 1, versionsTried
		if s.KeyVersion > 0 && s.KeyVersion <= maxVersion {
			first, last = s.KeyVersion, s.KeyVersion
		}
		for v := first; v <= last && len(s.Bytes) > 0; v++ {
			if _, err := m.try(ctx, i, v); err != nil {
				return nil, err
			}
		}
	}
	return m, nil
}

// hashNames are the values that Transit takes for hash_algorithm.
var hashNames = []string{
	"sha2-256", "sha2-384", "sha2-512", "sha2-224", "none", "sha1",
	"sha3-224", "sha3-256", "sha3-384", "sha3-512",
}

// learn hashes what the log must hold if the Hasher is the one that wrote it:
// another device, or the same one after it was enabled anew, has another salt,
// under which everything would look unexplained.
func (m *Matcher) learn(ctx context.Context) error {
	if m.opts.Hash == nil {
		return nil
	}
	m.known = make(map[string]bool)
	for _, name := range hashNames {
		h, err := m.opts.Hash(ctx, name)
		if err != nil {
			return err
		}
		m.known[h] = true
	}
	return nil
}

// try adds what the log would hold if version v had made signature i, and
// returns it: the text itself, for a device that logs it raw, and its hash.
func (m *Matcher) try(ctx context.Context, i, v int) ([]string, error) {
	s := &m.sigs[i]
	s.tried = append(s.tried, v)
	values := []string{s.value(v)}
	if m.opts.Hash != nil {
		h, err := m.opts.Hash(ctx, values[0])
		if err != nil {
			return nil, err
		}
		values = append(values, h)
	}
	for _, value := range values {
		m.index[value] = append(m.index[value], version{i, v})
	}
	return values, nil
}

// Read goes through one log, plain or gzip. name is for messages. Logs may be
// read in any order; give those of one audit device, each once. Errors are
// *LogError, or the context's.
func (m *Matcher) Read(ctx context.Context, name string, r io.Reader) error {
	b, err := unzipped(name, r)
	if err != nil {
		return err
	}
	m.log.Files++
	first := true
	long, err := m.readLines(ctx, name, b, &first)
	m.log.LongLines += long
	if err != nil && ctx.Err() == nil {
		if known, ok := err.(*LogError); ok {
			return known
		}
		return &LogError{Log: name, Reason: "it breaks off", Err: err}
	}
	return err
}

func (m *Matcher) readLines(ctx context.Context, name string, b *bufio.Reader, first *bool) (int, error) {
	return lines(ctx, b, m.opts.maxLine, func(line []byte, whole bool) error {
		// A prefix of the device's configuration, or a collector's, may come first.
		at := bytes.IndexByte(line, '{')
		if at < 0 {
			at = len(line)
		}
		if len(line) == 0 {
			return nil
		}
		m.log.Lines++
		if *first {
			*first = false
			var e entry
			if whole && (json.Unmarshal(line[at:], &e) != nil || e.Type != "request" && e.Type != "response") {
				return &LogError{Log: name, Reason: "its first line is no entry of a Vault audit device in JSON form"}
			}
		}
		// Nearly every line is about something else: do not parse those.
		if !bytes.Contains(line, []byte("/sign/")) && !bytes.Contains(line, []byte(`\/sign\/`)) {
			return nil
		}
		var e entry
		if json.Unmarshal(line[at:], &e) != nil {
			if whole {
				m.log.Malformed++
			}
			return nil
		}
		m.take(&e, name)
		return nil
	})
}

// take looks at one entry.
func (m *Matcher) take(e *entry, log string) {
	key, ok := e.key()
	if !ok || e.Request.Operation != "" && e.Request.Operation != "update" && e.Request.Operation != "create" {
		return
	}
	ev := e.event(key, log)
	name := e.hashName()
	ev.foreign = m.known != nil && name != "" && !m.known[name]
	m.log.span(e.Time)
	if e.Type == "request" {
		if !e.failed() {
			m.request(ev)
		}
		return
	}
	if e.Type != "response" {
		return
	}
	list, items, err := e.signatures()
	if err != nil {
		m.log.Malformed++
		return
	}
	m.log.SignRequests++
	if len(list) == 0 && !e.failed() && given(e.Response.Wrap) {
		// Whoever unwrapped the answer has a signature that this entry does not show.
		m.request(ev)
		return
	}
	m.response(ev)
	for i, s := range list {
		made := ev
		made.KeyVersion, made.item, made.value = s.KeyVersion, items[i], s.Signature
		m.signed(made)
	}
}

// request and response find the requests without an answer.
func (m *Matcher) request(ev Event) {
	switch {
	case !m.wanted(ev):
	case m.answered[ev.RequestID]:
		delete(m.answered, ev.RequestID)
	case len(m.pending) < maxPending:
		m.pending[ev.RequestID] = ev
	default:
		m.overflow = true
	}
}

func (m *Matcher) response(ev Event) {
	if _, ok := m.pending[ev.RequestID]; ok {
		delete(m.pending, ev.RequestID)
	} else if m.wanted(ev) && len(m.answered) < maxPending {
		// Its request is in a log that is still to come. What does not fit here
		// leaves a request without an answer, which is doubt and no acceptance.
		m.answered[ev.RequestID] = true
	}
}

// signed looks one signature of the log up.
func (m *Matcher) signed(ev Event) {
	m.log.Signatures++
	ev.foreign = ev.foreign && hashed(ev.value)
	if hashed(ev.value) {
		m.hashed++
	}
	if ev.foreign {
		m.log.Foreign++
	}
	for _, i := range m.hints[ev.RequestID] {
		if m.sigs[i].hinted == nil {
			m.sigs[i].hinted = &ev
		}
	}
	if hits := m.index[ev.value]; len(hits) > 0 {
		m.prove(ev, hits)
		return
	}
	if !m.wanted(ev) {
		return
	}
	if len(m.unmatched) < m.opts.MaxList {
		m.unmatched = append(m.unmatched, ev)
	} else {
		m.log.Unlisted++
	}
}

func (m *Matcher) prove(ev Event, hits []version) {
	if len(m.proven) < maxProven {
		m.proven[ev.id()] = true
	}
	m.matched[ev.value] = ev
	for _, h := range hits {
		s := &m.sigs[h.sig]
		// A second copy of the log is no second request.
		if len(s.events) < maxEvents && !slices.ContainsFunc(s.events, func(o Event) bool { return o.id() == ev.id() }) {
			s.by, s.events = h.version, append(s.events, ev)
		}
	}
}

func (m *Matcher) wanted(ev Event) bool {
	if len(m.opts.Keys) == 0 {
		return true
	}
	return slices.ContainsFunc(m.opts.Keys, func(k Key) bool {
		return k.Mount+"/"+k.Name == ev.Key && strings.Trim(k.Namespace, "/") == ev.Namespace
	})
}
