// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/aegis-oci/aegis-oci/pkg/internal/referrer"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/formats"
	"github.com/aegis-oci/aegis-oci/pkg/transfer"
)

// Whoever can push can attach, to what is attached as well.
const (
	// maxCopyDepth is how deep a copy goes; what is attached deeper is left out.
	maxCopyDepth = 8
	// maxCopyManifests and signatures in classic lists are copied, all in all.
	maxCopyManifests = 10000
	// maxCopyClassic is ten times what a verification examines in one list.
	maxCopyClassic = 1000
	// maxCopyEntry and maxCopyList bound what one referrer, and all of one manifest, add to
	// the list that stands under a tag where there is no referrers API, and that has to
	// stay below 4 MiB. maxCopyLists bounds all lists: a layout has one, of 16 MiB.
	maxCopyEntry = 64 << 10
	maxCopyList  = 3 << 20
	maxCopyLists = 12 << 20
	// maxCopyLayers bounds the same of a list of classic signatures.
	maxCopyLayers = 2 << 20
)

// copying is one Copy under way.
type copying struct {
	c        *Client
	src, dst Repository
	// mountFrom is the source repository's name where both are of one registry.
	mountFrom       string
	leave           bool
	seen            map[digest.Digest]bool // at the destination, or under way
	joined          map[digest.Digest]bool // attached to its subject: a list may name it as a part, too
	left            map[listed]bool        // not copied, for good
	looked          map[digest.Digest]bool // what is attached to it was looked for
	queue           []attachee
	there           map[digest.Digest]signature.Subject // at the destination
	parts           []part
	classics        int                   // signatures in classic lists
	listed          int                   // bytes of entries in lists
	lists           map[digest.Digest]int // the same, by what they refer to
	copied, mounted atomic.Int64
	result          CopyResult
}

func newCopying(c *Client, src, dst Repository, o CopyOptions) *copying {
	cp := &copying{c: c, src: src, dst: dst, leave: o.NoReferrers,
		seen: map[digest.Digest]bool{}, joined: map[digest.Digest]bool{}, left: map[listed]bool{}, looked: map[digest.Digest]bool{},
		there: map[digest.Digest]signature.Subject{}, lists: map[digest.Digest]int{}}
	from, ok := src.(registryRepository)
	to, both := dst.(registryRepository)
	if ok && both {
		a, b := from.Reference(), to.Reference()
		if a.Registry == b.Registry && a.Repository != b.Repository {
			cp.mountFrom = a.Repository
		}
	}
	return cp
}

// listed is a descriptor where it was listed. What is wrong with it there need not be
// wrong elsewhere: anybody can list what is a good signature of something else.
type listed struct {
	subject, digest digest.Digest
	mediaType       string
	size            int64
}

// contents is what a manifest lists.
type contents struct {
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
	Blobs     []ocispec.Descriptor `json:"blobs"`
	Manifests []ocispec.Descriptor `json:"manifests"`
}

// TooManyError means that more is attached to what is copied, or deeper, than a
// copy follows.
type TooManyError struct{ Reason string }

func (e *TooManyError) Error() string { return "too much to copy: " + e.Reason }

// attachee is a manifest at the destination to which something may be attached.
type attachee struct {
	signature.Subject
	depth int
	// foreign says that it is itself attached, and no part of what is to be copied.
	foreign bool
}

// root copies the manifest and everything that belongs to it. What is attached comes
// breadth first, after what it is attached to: then all that it can list as its parts is
// there, and nothing is looked into at a greater depth than it has.
func (cp *copying) root(ctx context.Context, p Pinned) (Pinned, error) {
	made, err := cp.manifest(ctx, attachee{Subject: p.Subject()}, p.Manifest())
	if err != nil {
		return nil, err
	}
	for len(cp.queue) > 0 {
		next := cp.queue[0]
		cp.queue = cp.queue[1:]
		if err := cp.attached(ctx, next); err != nil {
			return nil, err
		}
	}
	if made.Subject().Digest() != p.Subject().Digest() {
		return nil, fmt.Errorf("the copy is %s", made.Subject().Digest())
	}
	return made, cp.listParts(ctx)
}

// enqueue keeps the queue in order of depth: what is listed as a part of something deep
// may be near, too, and comes up as what it is then.
func (cp *copying) enqueue(a attachee) {
	after, _ := slices.BinarySearchFunc(cp.queue, a.depth+1, func(q attachee, depth int) int { return cmp.Compare(q.depth, depth) })
	cp.queue = slices.Insert(cp.queue, after, a)
	cp.there[a.Digest()] = a.Subject
}

// manifest copies what a manifest lists, and the manifest.
func (cp *copying) manifest(ctx context.Context, m attachee, raw []byte) (Pinned, error) {
	if err := cp.listsOf(ctx, m, raw); err != nil {
		return nil, err
	}
	made, err := cp.dst.Put(ctx, m.MediaType(), raw)
	if err != nil {
		return nil, err
	}
	cp.enqueue(m)
	if to := subjectIn(raw); to != nil {
		cp.parts = append(cp.parts, part{m, raw, *to})
	}
	return made, nil
}

// subjectIn is what a manifest refers to.
func subjectIn(raw []byte) *ocispec.Descriptor {
	var has struct {
		Subject *ocispec.Descriptor `json:"subject"`
	}
	if json.Unmarshal(raw, &has) != nil || has.Subject == nil || usable(*has.Subject) != nil {
		return nil
	}
	return has.Subject
}

// part is what was copied as a part of something, or by its own name, and refers to
// something.
type part struct {
	attachee
	raw []byte
	to  ocispec.Descriptor
}

// listParts lists parts for what they refer to, where nothing listed them: a registry
// without the referrers API leaves that to whoever pushes (distribution spec 1.1, "Pushing
// Manifests with Subject"). It comes last: the room in a list is for what was found as
// attached.
func (cp *copying) listParts(ctx context.Context) error {
	entries := map[digest.Digest][]ocispec.Descriptor{}
	var order []signature.Subject
	for _, m := range cp.parts {
		to, there := cp.there[m.to.Digest]
		if cp.joined[m.Digest()] || !there {
			continue
		}
		entry, err := cp.entryOf(to, m)
		if err != nil {
			cp.unlistedPart(m, err)
			continue
		}
		if entries[to.Digest()] == nil {
			order = append(order, to)
		}
		entries[to.Digest()] = append(entries[to.Digest()], entry)
		cp.joins(to, entry)
	}
	for _, s := range order {
		if err := cp.enlist(ctx, s, entries[s.Digest()]); err != nil {
			return err
		}
	}
	return cp.listRoot(ctx)
}

// listRoot lists what the copy was asked for if it refers to something that is no part of
// it, as a signature does that is named by its digest. Of other parts anybody chooses to
// what they refer, and could have us write into the list of any model there. It is no
// reason for the copy to fail.
func (cp *copying) listRoot(ctx context.Context) error {
	i := slices.IndexFunc(cp.parts, func(m part) bool { return m.depth == 0 && !m.foreign })
	if i < 0 {
		return nil
	}
	m := cp.parts[i]
	if _, there := cp.there[m.to.Digest]; there || cp.joined[m.Digest()] {
		return nil
	}
	if err := cp.enlistRoot(ctx, m); err != nil {
		if ctx.Err() != nil {
			return err
		}
		cp.unlistedPart(m, err)
	}
	return nil
}

func (cp *copying) enlistRoot(ctx context.Context, m part) error {
	to, err := cp.subject(ctx, m.to)
	if err != nil {
		return err
	}
	if r, ok := cp.dst.(registryRepository); ok {
		if api, err := r.HasReferrersAPI(ctx, to); err != nil || api {
			return err // it lists it by itself, or not, as long as it does not have the subject
		}
	}
	entry, err := cp.entryOf(to, m)
	if err != nil {
		return err
	}
	return cp.dst.Enlist(ctx, to, entry)
}

func (cp *copying) unlistedPart(m part, err error) {
	cp.c.warn("not listed as attached: " + m.Digest().String() + ": " + err.Error())
}

// entryOf is a part's entry in the list of what it refers to.
func (cp *copying) entryOf(to signature.Subject, m part) (ocispec.Descriptor, error) {
	entry, err := referrer.Entry(to, m.MediaType(), m.raw)
	if err != nil {
		return entry, unusableManifest(err.Error())
	}
	return entry, cp.room(to, entry)
}

// subject is a manifest that is not part of this copy: the destination may have it, and
// whoever copies a signature by its digest means that one.
func (cp *copying) subject(ctx context.Context, desc ocispec.Descriptor) (signature.Subject, error) {
	raw, err := cp.dst.FetchManifest(ctx, desc)
	if err != nil && ctx.Err() == nil {
		raw, err = cp.src.FetchManifest(ctx, desc)
	}
	if err != nil {
		return signature.Subject{}, err
	}
	return signature.SubjectOf(desc.MediaType, raw)
}

// listsOf copies the blobs and manifests that a manifest names.
func (cp *copying) listsOf(ctx context.Context, m attachee, raw []byte) (err error) {
	cp.seen[m.Digest()] = true
	defer func() {
		if err != nil {
			delete(cp.seen, m.Digest())
		}
	}()
	cp.result.Manifests++
	if m.depth > maxCopyDepth {
		return tooDeep()
	}
	if cp.result.Manifests > maxCopyManifests {
		return &TooManyError{fmt.Sprintf("more than %d manifests", maxCopyManifests)}
	}
	var has contents
	if err := json.Unmarshal(raw, &has); err != nil {
		return unusableManifest(err.Error())
	}
	for _, child := range has.Manifests {
		if cp.seen[child.Digest] {
			continue
		}
		if err := usable(child); err != nil {
			return err
		}
		content, err := cp.src.FetchManifest(ctx, child)
		if err != nil {
			return &sourceError{err}
		}
		subject, err := signature.SubjectOf(child.MediaType, content)
		if err != nil {
			return &sourceError{err}
		}
		if _, err := cp.manifest(ctx, attachee{subject, m.depth + 1, m.foreign}, content); err != nil {
			return err
		}
	}
	blobs := append(has.Layers, has.Blobs...)
	if has.Config != nil {
		blobs = append(blobs, *has.Config)
	}
	blobs = slices.DeleteFunc(blobs, func(b ocispec.Descriptor) bool { return isForeign(b) && cp.lacks(ctx, b) })
	if err := cp.withinLimit(ctx, m, blobs); err != nil {
		return err
	}
	return cp.blobs(ctx, blobs)
}

// isForeign reports that a blob need not be where its manifest is: it may not be passed
// on, and its URLs say who has it (image-spec 1.1, "Non-Distributable Layers").
func isForeign(desc ocispec.Descriptor) bool {
	return len(desc.URLs) > 0 &&
		(strings.HasPrefix(desc.MediaType, "application/vnd.oci.image.layer.nondistributable.v1.") ||
			desc.MediaType == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
}

// lacks reports that the source says that it does not have a blob.
func (cp *copying) lacks(ctx context.Context, desc ocispec.Descriptor) bool {
	if usable(desc) != nil {
		return false
	}
	rc, err := cp.fetch(ctx, desc, 0)
	if err == nil {
		_, err = io.ReadFull(rc, make([]byte, 1))
		rc.Close()
	}
	var r *registry.Error
	var l *layout.Error
	return errors.As(err, &r) && r.Kind == registry.NotFound || errors.As(err, &l) && l.Kind == layout.NotFound
}

// withinLimit refuses what the destination would refuse when all of it was sent. What is
// there, or may be mounted, is not sent.
func (cp *copying) withinLimit(ctx context.Context, m attachee, blobs []ocispec.Descriptor) error {
	to, ok := cp.dst.(registryRepository)
	if !ok || cp.mountFrom != "" {
		return nil
	}
	limit, service := registry.LayerLimit(to.Reference().Registry)
	picky := registry.NoEmptyLayers(to.Reference().Registry)
	for _, b := range blobs {
		empty := b.Size == 0 && picky != ""
		if !empty && (limit == 0 || b.Size <= limit) {
			continue
		}
		there, err := to.BlobExists(ctx, b)
		if err != nil {
			return cp.whose(ctx, b, err)
		}
		if there {
			continue
		}
		err = &LayerLimitError{Path: titleOf(b), Size: b.Size, Limit: limit, Registry: service}
		if empty {
			err = &EmptyLayerError{Path: titleOf(b), Registry: picky}
		}
		if m.foreign {
			return unusableManifest(err.Error())
		}
		return err
	}
	return nil
}

func (cp *copying) blobs(ctx context.Context, blobs []ocispec.Descriptor) error {
	if _, pushed := cp.dst.(registryRepository); pushed {
		defer cp.c.pool.Reserve(beside(blobs, cp.c.opts.Concurrency, transfer.PushMemory))()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cp.c.opts.Concurrency)
	started := map[digest.Digest]bool{}
	for _, desc := range blobs {
		if !started[desc.Digest] {
			started[desc.Digest] = true
			g.Go(func() error { return cp.blob(ctx, desc) })
		}
	}
	return g.Wait()
}

// blob sends what the destination does not have. Bytes that are not those of the
// digest are never committed: the writer hashes them.
func (cp *copying) blob(ctx context.Context, desc ocispec.Descriptor) error {
	if err := usable(desc); err != nil {
		return err
	}
	if cp.mountFrom != "" {
		to := cp.dst.(registryRepository)
		there, err := to.BlobExists(ctx, desc)
		if err != nil || there {
			return cp.whose(ctx, desc, err)
		}
		mounted, err := to.MountBlob(ctx, desc, cp.mountFrom)
		if err != nil {
			return cp.whose(ctx, desc, err)
		}
		if mounted {
			cp.mounted.Add(desc.Size)
			return nil
		}
	}
	name := titleOf(desc)
	// What is there already, as its PushBlob finds, is not under way.
	begin := sync.OnceFunc(func() { cp.c.start(name, desc.Size) })
	if _, remote := cp.dst.(registryRepository); !remote {
		begin() // a layout reads what it has
	}
	defer cp.c.done(name)
	m := &meter{name: name, progress: cp.c.opts.Progress}
	for {
		sent, err := cp.dst.PushBlob(ctx, desc, func(offset int64) (io.ReadCloser, error) {
			begin()
			return m.open(offset, func() (io.ReadCloser, error) { return cp.fetch(ctx, desc, offset) })
		})
		if sent {
			cp.copied.Add(desc.Size)
		}
		err = cp.whose(ctx, desc, sourceFault(name, desc, err))
		if ctx.Err() != nil {
			return err // perhaps another blob's
		}
		// A mirror may have sent what the registry has better.
		var wrong *model.ContentError
		if from, ok := cp.src.(model.Doubter); !errors.As(err, &wrong) || !ok || !from.Doubt(desc, true) {
			return err
		}
	}
}

// whose is an error of the destination, unless it is about a size that the source does
// not confirm: then the descriptor is wrong.
func (cp *copying) whose(ctx context.Context, desc ocispec.Descriptor, err error) error {
	var e *registry.Error
	var known *sourceError
	if errors.As(err, &known) || !errors.As(err, &e) || e.Kind != registry.Corrupt {
		return err
	}
	if desc.Size == 0 && desc.Digest != digest.FromBytes(nil) {
		return unusableManifest("the descriptor of " + desc.Digest.String() + " says that it is empty")
	}
	rc, fetched := cp.fetch(ctx, desc, 0)
	if fetched == nil {
		// Not every source announces a length, and none sends more than desc.Size here.
		is := desc.Digest.Verifier()
		if _, fetched = io.Copy(is, rc); fetched == nil && !is.Verified() {
			fetched = &sourceError{&model.ContentError{Path: titleOf(desc), Want: desc.Digest, Reason: fmt.Sprintf("its first %d bytes are not all of it", desc.Size)}}
		}
		rc.Close()
	}
	if unusable(fetched) {
		return fetched
	}
	return err
}

// fetch opens a blob of the source. One on this machine is read at the rate that it is
// to be sent at.
func (cp *copying) fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	rc, err := cp.src.Fetch(ctx, desc, offset)
	if err != nil {
		return nil, &sourceError{err}
	}
	rc = fromSource{rc}
	_, from := cp.src.(registryRepository)
	if _, to := cp.dst.(registryRepository); to && !from {
		return cp.c.throttle.Reader(ctx, rc), nil
	}
	return rc, nil
}

// titleOf is the name that is shown of a blob. Others wrote the title.
func titleOf(desc ocispec.Descriptor) string {
	title := desc.Annotations[ocispec.AnnotationTitle]
	if title == "" || len(title) > 200 || !utf8.ValidString(title) || strings.ContainsFunc(title, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return desc.Digest.Encoded()[:12]
	}
	return title
}

// sourceError is one of the source. What the destination refuses says nothing about
// what is copied.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// fromSource marks the errors of reading.
type fromSource struct{ io.ReadCloser }

func (r fromSource) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = &sourceError{err}
	}
	return n, err
}

// sourceFault says of content that turned out wrong on its way that it is the
// source's.
func sourceFault(name string, desc ocispec.Descriptor, err error) error {
	var changed *registry.ChangedError
	var wrong *layout.Error
	switch {
	case errors.As(err, &changed):
		return &sourceError{&model.ContentError{Path: name, Want: desc.Digest, Reason: changed.Reason}}
	case errors.As(err, &wrong) && wrong.Kind == layout.Corrupt:
		return &sourceError{&model.ContentError{Path: name, Want: desc.Digest, Reason: wrong.Detail}}
	}
	return err
}

// attached copies what refers to s, and the signatures under cosign's classic tag.
func (cp *copying) attached(ctx context.Context, s attachee) error {
	if cp.leave || cp.looked[s.Digest()] {
		return nil
	}
	cp.looked[s.Digest()] = true
	var all []ocispec.Descriptor
	for desc, err := range cp.src.Referrers(ctx, s.Subject) {
		if err != nil {
			if err := cp.unlisted(s, err); err != nil {
				return err
			}
			break
		}
		all = append(all, desc)
	}
	// What may be signatures comes before others can have taken the room in the list.
	slices.SortStableFunc(all, func(a, b ocispec.Descriptor) int { return cmp.Compare(formats.Rank(a), formats.Rank(b)) })
	var to []ocispec.Descriptor
	for _, desc := range all {
		if cp.joined[desc.Digest] || cp.left[listedAs(s.Subject, desc)] {
			continue
		}
		if err := cp.referrer(ctx, s, desc, &to); err != nil {
			// What was put before it counts all the same, if its subject has a tag already.
			if !registry.Retryable(err) {
				_ = cp.enlist(ctx, s.Subject, to)
			}
			return err
		}
	}
	if err := cp.enlist(ctx, s.Subject, to); err != nil {
		return err
	}
	return cp.classic(ctx, s.Subject)
}

// enlist writes a list at once: where it is under a tag, each write takes half a second.
// When all of it is refused, what comes first, signatures before others, is in the list
// when the copy ends, as if one had been listed after the other.
func (cp *copying) enlist(ctx context.Context, s signature.Subject, entries []ocispec.Descriptor) error {
	err := cp.dst.Enlist(ctx, s, entries...)
	var refused *registry.Error
	if len(entries) < 2 || !errors.As(err, &refused) || refused.Retryable() || refused.Kind == registry.NotListed {
		return err
	}
	half := len(entries) / 2
	if err := cp.enlist(ctx, s, entries[:half]); err != nil {
		return err
	}
	return cp.enlist(ctx, s, entries[half:])
}

// room says why there is none for an entry in the list of s.
func (cp *copying) room(s signature.Subject, entry ocispec.Descriptor) error {
	size := jsonSize(entry)
	switch {
	case size > maxCopyEntry:
		return unusableManifest(fmt.Sprintf("a list would need %d bytes for it, at most %d are copied", size, maxCopyEntry))
	case cp.lists[s.Digest()]+size > maxCopyList || cp.listed+size > maxCopyLists:
		return unusableManifest("what is attached before it fills the list")
	}
	return nil
}

func (cp *copying) joins(s signature.Subject, entry ocispec.Descriptor) {
	size := jsonSize(entry)
	cp.lists[s.Digest()] += size
	cp.listed += size
	cp.joined[entry.Digest] = true
}

// referrer copies one candidate. What is listed and is no referrer of s is anybody's
// doing, and must not keep the rest from being copied: it is named in the result.
func (cp *copying) referrer(ctx context.Context, to attachee, desc ocispec.Descriptor, list *[]ocispec.Descriptor) error {
	s := to.Subject
	if to.depth >= maxCopyDepth {
		return cp.leaveOut(s, desc, tooDeep())
	}
	raw, err := cp.src.FetchManifest(ctx, desc)
	if from, ok := cp.src.(layoutRepository); ok && err != nil && ctx.Err() == nil && from.Suspected(desc) {
		err = unusableManifest(err.Error())
	}
	if err != nil {
		return cp.leaveOut(s, desc, &sourceError{err})
	}
	subject, err := signature.SubjectOf(desc.MediaType, raw)
	if err != nil {
		return cp.leaveOut(s, desc, &sourceError{err})
	}
	entry, err := referrer.Entry(s, desc.MediaType, raw)
	if err != nil {
		return cp.leaveOut(s, desc, unusableManifest(err.Error()))
	}
	if err := cp.room(s, entry); err != nil {
		return cp.leaveOut(s, desc, err)
	}
	own := attachee{subject, to.depth + 1, true}
	if !cp.seen[own.Digest()] {
		if err := cp.listsOf(ctx, own, raw); err != nil {
			return cp.leaveOut(s, desc, err)
		}
	}
	if _, err := cp.dst.Put(ctx, desc.MediaType, raw); err != nil {
		return err
	}
	cp.joins(s, entry)
	*list = append(*list, entry)
	cp.result.Referrers++
	cp.enqueue(own)
	return nil
}

func jsonSize(v any) int {
	raw, err := json.Marshal(v)
	if err != nil {
		return math.MaxInt
	}
	return len(raw)
}

func listedAs(s signature.Subject, desc ocispec.Descriptor) listed {
	return listed{s.Digest(), desc.Digest, desc.MediaType, desc.Size}
}

// leaveOut goes on without what is listed for s when the error says that it cannot be
// had, and returns the error otherwise.
func (cp *copying) leaveOut(s signature.Subject, desc ocispec.Descriptor, err error) error {
	if !unusable(err) {
		return err
	}
	cp.left[listedAs(s, desc)] = true
	if len(cp.left) > maxCopyManifests {
		return &TooManyError{fmt.Sprintf("more than %d that cannot be copied", maxCopyManifests)}
	}
	cp.skip(desc.Digest.String(), err)
	return nil
}

// skip names what is left out, once.
func (cp *copying) skip(name string, err error) {
	if !slices.Contains(cp.result.Skipped, name) {
		cp.result.Skipped = append(cp.result.Skipped, name)
		cp.c.warn("not copied: " + name + ": " + err.Error())
	}
}

// unlisted goes on without what is attached to s when s itself is attached, by anybody,
// and its list is no list: what is attached to the model has others.
func (cp *copying) unlisted(s attachee, err error) error {
	if err := error(&sourceError{err}); s.foreign && unusable(err) {
		cp.skip(referrer.Tag(s.Digest()), err)
		return nil
	}
	return err
}

// usable refuses a descriptor by which nothing can be fetched and checked.
func usable(desc ocispec.Descriptor) error {
	if desc.Digest.Validate() == nil && desc.Digest.Algorithm() == digest.SHA256 && desc.Size >= 0 {
		return nil
	}
	return unusableManifest(fmt.Sprintf("the descriptor %.100q of %d bytes cannot be used", desc.Digest.String(), desc.Size))
}

func tooDeep() error {
	return &sourceError{&TooManyError{fmt.Sprintf("more than %d levels", maxCopyDepth)}}
}

func unusableManifest(reason string) error {
	return &sourceError{&signature.ManifestError{Reason: reason}}
}

// unusable reports that content is not there or not what its digest says, at the source,
// which another try does not change.
func unusable(err error) bool {
	var source *sourceError
	if !errors.As(err, &source) {
		return false
	}
	var content *model.ContentError
	var short *model.ShortError
	var manifest *signature.ManifestError
	var deep *TooManyError
	var list *registry.FallbackError
	var r *registry.Error
	var l *layout.Error
	switch {
	case errors.As(err, &content), errors.As(err, &short), errors.As(err, &manifest), errors.As(err, &deep), errors.As(err, &list):
		return true
	case errors.As(err, &r):
		return r.Kind == registry.NotFound || r.Kind == registry.Corrupt || r.Kind == registry.TooLarge
	case errors.As(err, &l):
		return true
	}
	return false
}

// classic adds cosign's classic signatures to those at the destination. Whoever can
// push can write the manifest that lists them: one that cannot be copied must not keep
// the rest from being, and is named in the result.
func (cp *copying) classic(ctx context.Context, s signature.Subject) error {
	desc, found, err := cp.src.Classic(ctx, s)
	if err := error(&sourceError{err}); unusable(err) {
		cp.skip(referrer.ClassicTag(s.Digest()), err)
		return nil
	}
	if err != nil || !found {
		return err
	}
	raw, err := cp.src.FetchManifest(ctx, desc)
	if err != nil {
		return cp.leaveOut(s, desc, &sourceError{err})
	}
	var has contents
	if json.Unmarshal(raw, &has) != nil {
		return cp.leaveOut(s, desc, unusableManifest("no list of signatures"))
	}
	if n := len(has.Layers); n > maxCopyClassic || cp.classics+n > maxCopyManifests {
		return cp.leaveOut(s, desc, unusableManifest(fmt.Sprintf("a list of %d signatures; at most %d of one list are copied, and %d in all", n, maxCopyClassic, maxCopyManifests)))
	}
	if size := jsonSize(has.Layers); size > maxCopyLayers {
		return cp.leaveOut(s, desc, unusableManifest(fmt.Sprintf("a list of signatures of %d bytes, at most %d are copied", size, maxCopyLayers)))
	}
	cp.classics += len(has.Layers)
	var layers []ocispec.Descriptor
	for _, layer := range has.Layers {
		if err := usable(layer); err != nil {
			// The layer has no name that could be shown.
			if err := cp.leaveOut(s, desc, err); err != nil {
				return err
			}
			continue
		}
		if err := cp.blob(ctx, layer); err != nil {
			if err := cp.leaveOut(s, layer, err); err != nil {
				return err
			}
			continue
		}
		layers = append(layers, layer)
	}
	if len(layers) == 0 {
		return nil
	}
	if _, err := cp.dst.AppendClassic(ctx, s, layers...); err != nil {
		return err
	}
	cp.result.Referrers += len(layers)
	return nil
}
