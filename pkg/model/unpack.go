// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/aegis-oci/aegis-oci/pkg/internal/rootfile"
	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/verify"
)

// defaultConcurrency is how many layers are fetched at once.
const defaultConcurrency = 3

// Fetcher opens layers. What it yields is not trusted.
type Fetcher interface {
	// Fetch opens the content of desc at offset, in bytes. The caller closes it. When
	// it has a method Discarded() int64, so many bytes came over the network besides
	// those that it hands out.
	Fetch(ctx context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error)
}

// Doubter is a Fetcher that has several sources.
type Doubter interface {
	// Doubt says that what came for desc, since the last Doubt, has another digest;
	// whole says that nothing of it was there before. It reports whether the next
	// Fetch asks another source.
	Doubt(desc ocispec.Descriptor, whole bool) bool
}

// UnpackOptions says how to unpack. The zero value refuses whatever is in doubt.
type UnpackOptions struct {
	// Replace puts the model in the place of another one that was installed at the
	// destination, or of a damaged copy. Everything in the directory goes.
	Replace bool
	// AllowRollback lets Replace install a model whose signature is older than
	// that of the installed one.
	AllowRollback bool
	// Select picks the layers to install. What is there of the same model is kept
	// and only the rest of them is fetched.
	Select Selection
	// Link lets Replace take files of the replaced model as they are, by a hard link,
	// instead of copies. A process that still has one open for writing writes into
	// the new model.
	Link bool
	// Cache is a directory of blobs that several pulls share. A blob that it does not
	// have is fetched into it first; what comes out of it is hashed again. With Link
	// the files are hard links to those of the cache that are ours. Nil means none.
	Cache *nodecache.Cache
	// SkipUnknown leaves layers of an unknown type out; each is named to Warn.
	SkipUnknown bool
	// NoResume neither uses nor keeps what an interrupted run has fetched.
	NoResume bool
	// DropPageCache takes each blob out of the page cache behind the write front, as
	// it gets to the disk, on Linux: a node that fetches for others keeps what it
	// serves from memory.
	DropPageCache bool
	// MaxExpansion bounds what one compressed layer may expand to, in bytes. Zero
	// means a hundred times its size and 1 GiB.
	MaxExpansion int64
	// Concurrency is how many layers are fetched at once. Zero means 3.
	Concurrency int
	// Spread reports whether connections limit the speed at present, and a layer comes
	// over several. Then no layer waits for another. Nil means never.
	Spread   func() bool
	Progress Progress
	// Logger hears details. Nil discards them.
	Logger *slog.Logger
	// Now dates the receipt. Nil means time.Now.
	Now func() time.Time
	// Warn hears what a user should know about and that stops nothing.
	Warn func(string)
}

// UnpackResult says what was done. Sizes are in bytes.
type UnpackResult struct {
	// Path is the destination.
	Path  string
	Files int
	Size  int64
	// BytesFetched came from the Fetcher; BytesReused were on the disk already and
	// hashed again.
	BytesFetched, BytesReused int64
	// Partial means that layers of the model are not installed.
	Partial bool
	// AlreadyThere means that every file was there and was checked again.
	AlreadyThere bool
}

// unpacking is one run.
type unpacking struct {
	fetch Fetcher
	// whole is the manifest and wanted what is to be installed of it; m has the
	// layers that this run has to fetch.
	whole  Manifest
	wanted layerSet
	m      Manifest
	// verified is the zero Verified for UnpackUnverified, which leaves no receipt.
	verified verify.Verified
	dst      string
	o        UnpackOptions
	progress Progress
	res      UnpackResult
	// old is the model that is replaced, whose files may be wanted again.
	old *Installed
	// oldArchives are those of its archives that can be put together again.
	oldArchives map[digest.Digest]Layer
	// part is what is there of the same model, when layers are added to it.
	part *Installed
	// noLinks means that no file of the staging directory can have a second name.
	noLinks bool
	// literals are the sums of what was staged in pieces, by the blob's digest.
	literals map[digest.Digest]uint64
	// fullCache means that nothing is to be fetched into the cache.
	fullCache bool
	// config is the config blob where it is needed to check archives later.
	config []byte
}

// Unpack fetches the layers of m, which Decode made from v, and installs them at
// dst. Nothing has its final name before every byte of the model was checked
// against v's digest; the receipt comes last.
//
// Rejections are *ContentError, *ShortError, *PathError, *LayerError, *TarError
// and *IndexError: nothing is left then, staging included. After another error of
// f or the end of ctx, what was fetched stays staged for the next run.
// A *SpaceError leaves nothing; nor does a selection that is malformed (an
// *OptionError) or picks nothing (a *SelectionError). The destination's state is told by
// *NotEmptyError, *InstalledError, *RollbackError, *DirError and *LockedError.
func Unpack(ctx context.Context, f Fetcher, v verify.Verified, m Manifest, dst string, o UnpackOptions) (UnpackResult, error) {
	if v.IsZero() {
		return UnpackResult{}, &signature.ManifestError{Reason: "nothing was verified"}
	}
	if m.subject != v.Subject() {
		return UnpackResult{}, &ContentError{Path: "manifest", Want: v.Subject().Digest(), Got: m.subject.Digest(), Reason: "another manifest was verified"}
	}
	return newUnpacking(f, v, m, dst, o).run(ctx)
}

// UnpackUnverified is Unpack for a manifest that nobody vouched for. The layers
// are held to the manifest's digests all the same, but no receipt is written, so
// that the result never passes for an installed model.
func UnpackUnverified(ctx context.Context, f Fetcher, m Manifest, dst string, o UnpackOptions) (UnpackResult, error) {
	if m.subject.IsZero() {
		return UnpackResult{}, &signature.ManifestError{Reason: "nothing was decoded"}
	}
	return newUnpacking(f, verify.Verified{}, m, dst, o).run(ctx)
}

func newUnpacking(f Fetcher, v verify.Verified, m Manifest, dst string, o UnpackOptions) *unpacking {
	if o.Concurrency <= 0 {
		o.Concurrency = defaultConcurrency
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	return &unpacking{fetch: f, whole: m, wanted: m.allLayers(), m: m, verified: v, dst: dst, o: o, progress: orNoProgress(o.Progress)}
}

func (u *unpacking) run(ctx context.Context) (UnpackResult, error) {
	if err := u.acceptLayers(); err != nil {
		return UnpackResult{}, err
	}
	s, err := openSite(ctx, u.dst, u.o.Warn)
	if err != nil {
		if lacksStaging(err) && u.readyWithoutStaging(ctx) {
			return u.res, nil
		}
		return UnpackResult{}, asSpaceError(u.dst, err)
	}
	u.res.Path = s.dst
	started, err := u.at(ctx, s)
	if err == nil {
		s.leave(true)
		return u.res, nil
	}
	err = asSpaceError(s.dst, err)
	u.abandon(s, started, err)
	return UnpackResult{}, err
}

// lacksStaging reports that nothing can be staged, nor anything be locked.
func lacksStaging(err error) bool {
	var locked *LockedError
	return rootfile.IsReadOnly(err) || isDiskFull(err) || errors.As(err, &locked)
}

func asSpaceError(dst string, err error) error {
	if isDiskFull(err) {
		return &SpaceError{Dir: dst, Err: err}
	}
	return err
}

// abandon leaves the site after an error: with everything fetched still staged
// when that may help the next run, else with nothing.
func (u *unpacking) abandon(s *site, started bool, err error) {
	var space *SpaceError
	if started && !u.o.NoResume && !rejected(err) && !errors.As(err, &space) {
		s.leave(false)
		return
	}
	if j := s.readJournal(); j.State == statePlacing || j.State == stateExtending {
		if s.clearPlaced(j) != nil {
			// The journal is what tells the next run which names to clear.
			s.leave(false)
			return
		}
	}
	s.leave(true)
	s.dropParents()
}

// acceptLayers decides about layers of unknown types, and which of the others are
// wanted. A selection that names what it wants has not named an unknown one.
func (u *unpacking) acceptLayers() error {
	if len(u.m.unknown) > 0 && !u.o.Select.names() {
		if !u.o.SkipUnknown {
			return &LayerError{MediaTypes: u.m.Unknown()}
		}
		u.o.Warn("skipping layers of an unknown type: " + strings.Join(u.m.unknown, ", "))
	}
	if len(u.m.layers) == 0 {
		return &signature.ManifestError{Reason: "it has no layer that could be unpacked"}
	}
	wanted, err := u.o.Select.choose(u.whole)
	if err != nil {
		return err
	}
	u.want(wanted)
	return nil
}

// want makes set what is to be installed, all of it to be fetched.
func (u *unpacking) want(set layerSet) {
	u.wanted, u.m = set, u.whole.only(set)
	u.res.Partial = set.count() < u.whole.allLayers().count()
}

// at does the work under the destination's lock. started reports that there may
// be something staged that is worth keeping.
func (u *unpacking) at(ctx context.Context, s *site) (started bool, err error) {
	found, err := u.survey(ctx, s)
	if err != nil {
		// What is staged does not help at a destination that must not be touched.
		return !judged(err) && s.readJournal().Digest == u.m.subject.Digest(), err
	}
	if found == foundSame {
		return false, nil
	}
	if u.o.NoResume {
		if err := s.wipe(); err != nil {
			return false, err
		}
	}
	if err := s.begin(u.m.subject.Digest()); err != nil {
		return false, err
	}
	blobs := u.blobs()
	if slices.ContainsFunc(blobs, func(b blob) bool { return b.pieces }) {
		if u.noLinks, err = s.lacksLinks(); err != nil {
			return true, err
		}
		blobs = u.blobs()
	}
	if err := s.dropOtherForms(blobs); err != nil {
		return true, err
	}
	old := u.findOld(s, blobs)
	if err := u.checkSpace(s, blobs, old); err != nil {
		return true, err
	}
	if err := u.fetchAll(ctx, s, blobs, old); err != nil {
		return true, err
	}
	t, err := u.assemble(ctx, s)
	if err != nil {
		return true, err
	}
	if found == foundPart {
		err = u.extend(s, t)
	} else {
		err = u.place(s, t, found == foundOther)
	}
	if err != nil {
		return true, err
	}
	u.o.Logger.Debug("unpacked", "digest", u.m.subject.Digest(), "path", s.dst, "files", u.res.Files)
	return true, nil
}

// begin makes the staging directory ready for dgst.
func (s *site) begin(dgst digest.Digest) error {
	if err := s.writeJournal(journal{Digest: dgst, State: stateFetching}); err != nil {
		return err
	}
	return makeDirs(s.root, blobsDir, map[string]bool{})
}

// blob is one distinct blob to fetch, and what it is called.
type blob struct {
	desc ocispec.Descriptor
	name string
	// executable reports that a file that is made of it will be.
	executable bool
	// pieces says that it is an archive that is cut where its files are.
	pieces bool
}

func (b blob) file() string { return blobFile(b.desc.Digest) }

func blobFile(d digest.Digest) string { return blobsDir + "/" + d.Encoded() }

// blobs returns every layer's blob once, and the config where it says what
// compressed archives expand to.
func (u *unpacking) blobs() []blob {
	var (
		all  []blob
		seen = make(map[digest.Digest]int)
	)
	for _, l := range u.m.layers {
		i, known := seen[l.Descriptor.Digest]
		// What goes through the cache is one file there.
		pieces := l.Archive && l.Compression == compressionNone && u.o.Cache == nil && !u.noLinks && l.Descriptor.Digest != u.m.config.Digest
		if !known {
			i = len(all)
			seen[l.Descriptor.Digest] = i
			all = append(all, blob{desc: l.Descriptor, name: l.name(), pieces: pieces})
		}
		all[i].executable = all[i].executable || l.Executable
		all[i].pieces = all[i].pieces && pieces
	}
	if _, known := seen[u.m.config.Digest]; u.m.compressed() && u.m.hasModelConfig() && !known {
		all = append(all, blob{desc: u.m.config, name: "config"})
	}
	return all
}

// allocated is what of the blob is staged, in bytes on the disk.
func (b blob) allocated(s *site) (total int64) {
	if !b.pieces {
		if info, err := s.root.Lstat(b.file()); err == nil {
			total = rootfile.Allocated(info)
		}
		return total
	}
	for n := 0; ; n++ {
		info, err := s.root.Lstat(pieceFile(b.desc.Digest, n))
		if err != nil {
			return total
		}
		// What is rounded up to blocks is nothing of the blob, what is reserved is.
		if total += info.Size(); rootfile.Allocated(info)-info.Size() >= minPiece {
			total += rootfile.Allocated(info) - info.Size()
		}
	}
}

// left is what of the blob is not staged yet, in bytes.
func (b blob) left(s *site) int64 { return b.desc.Size - min(b.allocated(s), b.desc.Size) }

// dropOtherForms removes what another run has staged as a file of what comes in pieces
// now, with other options, or the reverse.
func (s *site) dropOtherForms(blobs []blob) error {
	staged, err := listDir(s.root, blobsDir)
	if err != nil || len(staged) == 0 {
		return err
	}
	for _, b := range blobs {
		other := piecesDir(b.desc.Digest)
		if b.pieces {
			other = b.file()
		}
		if err := s.root.RemoveAll(other); err != nil {
			return err
		}
	}
	return nil
}

// lacksLinks tries whether a staged file can have a second name, in another directory.
func (s *site) lacksLinks() (bool, error) {
	const trial, second = blobsDir + "/link", "link"
	clear := func() error { return errors.Join(s.root.RemoveAll(trial), s.root.RemoveAll(second)) }
	if err := clear(); err != nil {
		return false, err
	}
	f, err := s.root.Create(trial)
	if err != nil {
		return false, err
	}
	lacks := s.root.Link(trial, second) != nil
	return lacks, errors.Join(f.Close(), clear())
}

// inPieces are the blobs that are staged so.
func inPieces(blobs []blob) map[digest.Digest]bool {
	pieces := make(map[digest.Digest]bool)
	for _, b := range blobs {
		pieces[b.desc.Digest] = b.pieces
	}
	return pieces
}

// checkSpace compares what is still to be written with what is free. A file that could be
// cloned or linked, and turns out to hold something else when it is read, is fetched after
// all: there may be no room then, and the old model stays.
func (u *unpacking) checkSpace(s *site, blobs []blob, old map[digest.Digest]string) error {
	var need int64
	for _, b := range blobs {
		if !u.o.Link || old[b.desc.Digest] == "" {
			need += b.left(s)
		}
	}
	used, pieces := make(map[digest.Digest]bool), inPieces(blobs)
	for _, l := range u.m.layers {
		// An archive is unpacked beside its blob, unless its files are pieces of that; of
		// a blob that is several files all but the first are copies.
		if l.Archive && !pieces[l.Descriptor.Digest] || used[l.Descriptor.Digest] {
			need += l.Descriptor.Size
		}
		used[l.Descriptor.Digest] = true
	}
	free, err := freeSpace(s.stagingPath())
	if err != nil {
		return fmt.Errorf("ask for the free space of %s: %w", s.dst, err)
	}
	if need > free {
		need -= u.shared(s, blobs, old)
	}
	if need > free && u.o.Cache != nil && sameVolume(u.o.Cache.Dir(), s.stagingPath()) {
		u.evict(blobs, need-free)
		if free, err = freeSpace(s.stagingPath()); err != nil {
			return fmt.Errorf("ask for the free space of %s: %w", s.dst, err)
		}
	}
	if need > free {
		return &SpaceError{Dir: s.dst, Need: need, Free: free}
	}
	u.checkCache(s, blobs, need)
	return nil
}

// shared is what of the space takes none: old files where the file system clones, and
// those of the cache where it clones or they are linked.
func (u *unpacking) shared(s *site, blobs []blob, old map[digest.Digest]string) (size int64) {
	for _, b := range blobs {
		name := old[b.desc.Digest]
		if name != "" && !u.o.Link && clones(s, name) || name == "" && u.sharesCached(s, b) {
			size += b.left(s)
		}
	}
	return size
}
