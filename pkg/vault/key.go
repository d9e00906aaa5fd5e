// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

const (
	// maxRequests bounds the requests of one Check, however many candidates an
	// attacker attaches.
	maxRequests = 4
	// versionWindow is how many versions of an unreadable key are tried at once.
	versionWindow = 8
)

// Key judges signatures by asking MOUNT/verify/NAME.
type Key struct {
	s        *Session
	ref      KeyRef
	identify bool
}

var _ signature.Key = (*Key)(nil)

// Key returns the key that ref names. Nothing is asked before the first Check.
func (s *Session) Key(ref KeyRef) *Key { return &Key{s: s, ref: ref} }

// Identified returns the same key, which Check reads first. Where the token may
// read it, every acceptance then says which public key it was.
func (k *Key) Identified() *Key { return &Key{s: k.s, ref: k.ref, identify: true} }

// ID describes the key; Type and SPKI are set once the key has been read.
func (k *Key) ID() signature.KeyID {
	id := signature.KeyID{Name: k.ref.String(), Version: k.ref.Version}
	if info := k.s.knownInfo(k.ref); info != nil {
		if id.Version == 0 {
			id.Version = info.latest
		}
		id.Type, id.SPKI = info.keyType(), info.spki[id.Version]
	}
	return id
}

// Local reports false.
func (k *Key) Local() bool { return false }

// Check asks Vault about every check in at most four requests, and one that
// reads the key when the versions to try are not known.
//
// A pinned version is the only one tried. Otherwise the hinted version of each
// check goes into a first request; what that leaves open is tried under every
// version that the key has where it may be read, newest first, and under
// versions 1 to 8, 9 to 16 and so on where it may not. A verdict is ErrInvalid
// when every version that exists refused, and an *Error when one was not asked.
// Signatures that no key could have made are refused without asking.
func (k *Key) Check(ctx context.Context, checks []signature.Check) []signature.Verdict {
	a := &asking{k: k, op: "verify with " + k.ref.String(), verdicts: make([]signature.Verdict, len(checks)), requests: maxRequests}
	if k.identify && len(checks) > 0 {
		if _, err := k.s.info(ctx, a.op, k.ref); err != nil {
			for i := range a.verdicts {
				a.verdicts[i].Err = err
			}
			return a.verdicts
		}
	}
	info := k.s.knownInfo(k.ref)
	for i, c := range checks {
		a.add(i, c, info)
	}
	if len(a.open) == 0 {
		return a.verdicts
	}
	if k.ref.Version != 0 {
		a.round(ctx, func(*question) []int { return []int{k.ref.Version} })
		a.refuseRest()
		return a.verdicts
	}
	a.round(ctx, func(q *question) []int { return q.hint() })
	if len(a.open) == 0 {
		return a.verdicts
	}
	info, err := k.s.info(ctx, a.op, k.ref)
	switch {
	case err != nil:
		a.failRest(err)
	case info != nil:
		a.exhaust(ctx, info)
	default:
		a.search(ctx)
	}
	return a.verdicts
}

// question is one check that is still open.
type question struct {
	index int
	check signature.Check
	sets  []params
	tried map[int]bool
}

func (q *question) hint() []int {
	if h := q.check.VersionHint; h > 0 && h <= maxKeyVersion {
		return []int{h}
	}
	return nil
}

// asking is one run of Check.
type asking struct {
	k        *Key
	op       string
	verdicts []signature.Verdict
	open     []*question
	requests int // still allowed
	end      int // the lowest version known to be too new, zero for unknown
	stop     error
}

// add opens a question, or answers it where no request is needed.
func (a *asking) add(i int, c signature.Check, info *keyInfo) {
	// A certificate says which type of key it is of. It leads to one row of the
	// table where the key may not be read, and must agree where it may.
	typ, _ := c.Leaf()
	if info != nil {
		if known := info.keyType(); typ == signature.KeyUnknown || typ == known {
			typ = known
		} else {
			a.verdicts[i].Err = fmt.Errorf("the certificate is of a key of type %s, not %s: %w", typ, known, signature.ErrInvalid)
			return
		}
	}
	sets := paramsFor(c.Format, typ)
	switch {
	case len(sets) == 0:
		a.verdicts[i].Err = fmt.Errorf("format %q has no algorithm for a key of type %q: %w", c.Format, typ, signature.ErrInvalid)
	case !signature.WellFormed(c.Signature, typ):
		a.verdicts[i].Err = fmt.Errorf("not encoded as a signature: %w", signature.ErrInvalid)
	case len(c.Message) > maxMessageBytes:
		a.verdicts[i].Err = &Error{Op: a.op, Kind: NotAsked, Detail: fmt.Sprintf("a message of %d bytes, more than %d", len(c.Message), maxMessageBytes)}
	default:
		a.open = append(a.open, &question{index: i, check: c, sets: sets, tried: make(map[int]bool)})
	}
}

// exhaust tries every version that the key has, newest first.
func (a *asking) exhaust(ctx context.Context, info *keyInfo) {
	a.round(ctx, func(*question) []int {
		var versions []int
		for v := info.latest; v >= info.minVerify && len(versions) < maxRequests*maxBatch; v-- {
			versions = append(versions, v)
		}
		return versions
	})
	a.refuseRest()
}

// search looks for the versions of a key that may not be read.
func (a *asking) search(ctx context.Context) {
	for first := 1; len(a.open) > 0 && (a.end == 0 || first < a.end); first += versionWindow {
		a.round(ctx, func(*question) []int {
			versions := make([]int, versionWindow)
			for i := range versions {
				versions[i] = first + i
			}
			return versions
		})
	}
	a.refuseRest()
}

// item is one element of a request: a question under one version.
type item struct {
	q       *question
	version int
}

// round asks every open question under the versions that pick names and that
// were not tried yet. All questions' first versions go before all second ones,
// so that a limit cuts everybody alike.
func (a *asking) round(ctx context.Context, pick func(*question) []int) {
	bySet := make(map[params][]item)
	var order []params
	picked := make(map[*question][]int, len(a.open))
	depth := 0
	for _, q := range a.open {
		picked[q] = pick(q)
		depth = max(depth, len(picked[q]))
	}
	for n := range depth {
		for _, q := range a.open {
			if n >= len(picked[q]) || q.tried[picked[q][n]] {
				continue
			}
			for _, p := range q.sets {
				if bySet[p] == nil {
					order = append(order, p)
				}
				bySet[p] = append(bySet[p], item{q, picked[q][n]})
			}
		}
	}
	for _, p := range order {
		for items := bySet[p]; len(items) > 0 && a.stop == nil; {
			items = a.request(ctx, p, items)
		}
	}
	a.settle()
}

// settle drops the answered questions, and answers the others when nothing can
// be asked any more.
func (a *asking) settle() {
	still := a.open[:0]
	for _, q := range a.open {
		v := &a.verdicts[q.index]
		if v.Err == nil && v.KeyVersion == 0 {
			if a.stop == nil {
				still = append(still, q)
				continue
			}
			v.Err = a.stop
		}
	}
	a.open = still
}

func (a *asking) refuseRest() {
	for _, q := range a.open {
		a.verdicts[q.index].Err = signature.ErrInvalid
	}
	a.open = nil
}

func (a *asking) failRest(err error) {
	for _, q := range a.open {
		a.verdicts[q.index].Err = err
	}
	a.open = nil
}

// request sends as many of items as one request takes and returns the others.
// Items of questions that were answered meanwhile are left out, and versions
// that turned out not to exist.
func (a *asking) request(ctx context.Context, p params, items []item) []item {
	var sent []item
	size := 0
	rest := items
	for ; len(rest) > 0 && len(sent) < maxBatch; rest = rest[1:] {
		it := rest[0]
		v := a.verdicts[it.q.index]
		if v.Err != nil || v.KeyVersion != 0 || a.end != 0 && it.version >= a.end {
			continue
		}
		if size += len(it.q.check.Message); size > maxBatchBytes && len(sent) > 0 {
			break
		}
		sent = append(sent, it)
	}
	if len(sent) == 0 {
		return rest
	}
	if a.requests--; a.requests < 0 {
		a.stop = &Error{Op: a.op, Path: a.k.ref.path("verify"), Kind: NotAsked,
			Detail: fmt.Sprintf("%d requests did not reach every signature under every version of the key", maxRequests),
			Hint:   "name the version (?version=N) or grant \"read\" on " + a.k.ref.path("keys")}
		return nil
	}
	results, err := a.send(ctx, p, sent)
	if err != nil {
		a.stop = err
		return nil
	}
	for i, r := range results {
		a.take(sent[i], r)
	}
	return rest
}

func (a *asking) send(ctx context.Context, p params, items []item) ([]batchResult, error) {
	req := batchRequest{params: p}
	for n, it := range items {
		req.Items = append(req.Items, batchItem{
			Input:     base64.StdEncoding.EncodeToString(it.q.check.Message),
			Signature: formatSignature(it.q.check.Signature, it.version),
			Reference: strconv.Itoa(n),
		})
	}
	path := a.k.ref.path("verify")
	ans, err := a.k.s.do(ctx, call{op: a.op, path: path, namespace: a.k.s.namespace(a.k.ref), capability: "update", body: req})
	if err != nil {
		return nil, explainKey(a.k.ref, err)
	}
	results, err := decodeBatch(ans.Data, len(items))
	if err != nil {
		return nil, &Error{Op: a.op, Path: path, Kind: Malformed, Detail: err.Error(), RequestID: ans.RequestID}
	}
	return results, nil
}

// take records one result.
func (a *asking) take(it item, r batchResult) {
	it.q.tried[it.version] = true
	v := &a.verdicts[it.q.index]
	if v.KeyVersion != 0 {
		return // accepted under another version of the same request
	}
	switch judgeItem(r) {
	case accepted:
		*v = signature.Verdict{KeyVersion: it.version}
		if info := a.k.s.knownInfo(a.k.ref); info != nil {
			v.SPKI = info.spki[it.version]
		}
	case tooNew:
		if a.end == 0 || it.version < a.end {
			a.end = it.version
		}
	case failed:
		v.Err = a.unanswered(r.Error)
	}
}

// unanswered is for an item that the server did not judge.
func (a *asking) unanswered(text string) error {
	ref := a.k.ref
	e := &Error{Op: a.op, Path: ref.path("verify"), Kind: itemKind(text), Detail: a.k.s.public(text)}
	switch e.Kind {
	case Denied:
		e.Capability, e.Detail = "update", ""
	case KeyUnsuitable:
		e.Hint = createCommand(ref, ref.Name+"-signing")
	}
	return e
}
