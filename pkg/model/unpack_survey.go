// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// finding is what a destination holds.
type finding int

const (
	foundNothing finding = iota
	// foundSame is the wanted model, every file checked.
	foundSame
	// foundOther is a model that may be replaced.
	foundOther
	// foundPart is some of the wanted model, checked; the rest is to come.
	foundPart
)

// survey looks at what is at the destination and in staging. It finishes or
// clears what an interrupted run left, and returns an error for a destination
// that must not be touched.
func (u *unpacking) survey(ctx context.Context, s *site) (finding, error) {
	j := s.readJournal()
	same := j.Digest == u.m.subject.Digest()
	if (j.State == statePlacing || j.State == stateExtending) && s.inside {
		if same && !u.o.NoResume && !s.finished(j) {
			u.reclaim(s, j)
		}
		if err := s.clearPlaced(j); err != nil {
			return foundNothing, fmt.Errorf("clear what an interrupted run left: %w", err)
		}
		if err := s.writeJournal(journal{Digest: j.Digest, State: stateFetching}); err != nil {
			return foundNothing, err
		}
	}
	if same {
		u.reclaimTree(s)
		if err := s.root.RemoveAll(treeDir); err != nil {
			return foundNothing, err
		}
	} else if err := s.wipe(); err != nil {
		return foundNothing, err
	}
	if !s.inside {
		return foundNothing, nil
	}
	names, err := s.contents()
	if err != nil || len(names) == 0 {
		return foundNothing, err
	}
	found, err := u.judge(ctx, s, names)
	if err == nil && found == foundOther {
		_, err = s.listRemovable() // before anything is fetched for nothing
	}
	return found, err
}

// mustBeEmpty finds what came to an empty destination in the meantime.
func (s *site) mustBeEmpty() error {
	names, err := s.contents()
	if err != nil || len(names) == 0 {
		return err
	}
	return notEmpty(s.dst, names)
}

func notEmpty(dir string, names []string) *NotEmptyError {
	if len(names) > 5 {
		names = append(names[:5], "...")
	}
	return &NotEmptyError{Dir: dir, Names: names}
}

// contents lists the destination without what a volume brings along.
func (s *site) contents() ([]string, error) {
	names, err := listDir(s.base, ".")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, isFurniture), nil
}

// judge decides about a destination that holds something.
func (u *unpacking) judge(ctx context.Context, s *site, names []string) (finding, error) {
	there, err := readInstalled(s.base, s.dst)
	if err != nil {
		return u.judgeUnread(s, names, err)
	}
	if u.verified.IsZero() || there.digest() != u.m.subject.Digest() {
		return u.judgeOther(s, there)
	}
	found, err := u.judgeSame(ctx, s, there)
	if err == nil {
		return found, nil
	}
	var (
		damaged     *DirError
		receipt     *NotInstalledError
		uncheckable *UncheckableError
	)
	switch {
	case errors.As(err, &damaged) && damaged.inFurniture():
		// It would outlast the model that is fetched again.
	case errors.As(err, &uncheckable):
		u.o.Warn(err.Error() + "; fetching it again")
		u.old = there
		return foundOther, nil
	case u.o.Replace && (errors.As(err, &damaged) || errors.As(err, &receipt) || isUnreadable(err)):
		u.o.Warn("replacing " + err.Error())
		u.old = there
		return foundOther, nil
	}
	return foundNothing, err
}

// judgeUnread decides about a destination whose evidence cannot be read, for the reason
// err: it may be anybody's directory, unless a part of the evidence names the wanted
// model. Of another model it would not be known how old its signature is.
func (u *unpacking) judgeUnread(s *site, names []string, err error) (finding, error) {
	if !u.o.Replace || !s.names(u.m.subject.Digest()) {
		return foundNothing, notEmpty(s.dst, names)
	}
	u.o.Warn(fmt.Sprintf("replacing what %s holds: %v", s.dst, err))
	u.old = &Installed{dir: s.dst, mediaType: u.m.subject.MediaType(), manifest: u.m.raw}
	return foundOther, nil
}

// names reports whether the kept manifest is the one with digest d, or the receipt says
// so.
func (s *site) names(d digest.Digest) bool {
	// What a link leads to is not what we wrote.
	if info, err := s.base.Lstat(evidenceDir); err != nil || !info.IsDir() {
		return false
	}
	if manifest, err := readSmall(s.base, manifestName, signature.MaxManifestSize); err == nil && digest.FromBytes(manifest) == d {
		return true
	}
	r, err := readReceipt(s.base)
	return err == nil && r.Digest == d
}

// isUnreadable reports that a file is there and cannot be read.
func isUnreadable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO)
}

// judgeSame hashes every file of the model that is there. When layers are wanted
// that are not, it leaves those to be fetched: what the directory says it holds
// only decides how much more than the wanted layers is held to the manifest.
func (u *unpacking) judgeSame(ctx context.Context, s *site, there *Installed) (finding, error) {
	have, err := there.layers(s.base, u.whole)
	if err != nil {
		return foundNothing, err
	}
	u.want(u.wanted.with(have))
	files, size, err := there.check(ctx, s.base, u.verified, u.whole.only(have), CheckOptions{Progress: u.o.Progress})
	if err != nil {
		return foundNothing, err
	}
	u.res.Files, u.res.Size, u.res.BytesReused = files, size, size
	if missing := u.wanted.without(have); missing.count() > 0 {
		u.part, u.m = there, u.whole.only(missing)
		return foundPart, nil
	}
	u.res.AlreadyThere = true
	return foundSame, u.refresh(s, there)
}

// refresh brings the kept evidence up to date: a model that was signed again stays
// checkable.
func (u *unpacking) refresh(s *site, there *Installed) error {
	if there.complete && (u.sameEvidence(there) || signedAt(u.verified).Before(there.signedAt)) {
		return nil
	}
	if err := u.renewEvidence(s); err != nil {
		u.o.Warn("keeping the older evidence beside the model: " + err.Error())
	}
	return nil
}

// judgeOther decides about another model at the destination.
func (u *unpacking) judgeOther(s *site, there *Installed) (finding, error) {
	wanted := u.m.subject.Digest()
	if !u.o.Replace {
		return foundNothing, &InstalledError{Dir: s.dst, Installed: there.digest(), Wanted: wanted}
	}
	// The stored time is a guard against accidents and replays, and no more: who
	// can write the volume can change it.
	at := signedAt(u.verified)
	if !u.verified.IsZero() && !u.o.AllowRollback && at.Before(there.signedAt) {
		return foundNothing, &RollbackError{
			Dir: s.dst, Installed: there.digest(), Wanted: wanted,
			InstalledAt: showTime(there.signedAt), WantedAt: showTime(at),
		}
	}
	u.old = there
	return foundOther, nil
}

func showTime(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

// reclaim moves files that an interrupted run of the same manifest has placed
// back to staging, where they are hashed again like everything kept.
func (u *unpacking) reclaim(s *site, j journal) {
	u.reclaimTree(s)
	placed := make(map[string]bool, len(j.New))
	for _, name := range j.New {
		placed[name] = true
	}
	for _, l := range u.m.layers {
		if !l.Archive && placed[l.Path] {
			u.moveBack(s, l.Path, l)
		}
	}
}

func (u *unpacking) reclaimTree(s *site) {
	if _, err := s.root.Lstat(treeDir); err != nil {
		return
	}
	for _, l := range u.m.layers {
		if !l.Archive {
			u.moveBack(s, s.staging+"/"+treeDir+"/"+l.Path, l)
		}
	}
}

// moveBack makes a file the staged file of its layer's blob unless there is one.
// It may fail: then the layer is fetched.
func (u *unpacking) moveBack(s *site, name string, l Layer) {
	to := s.staging + "/" + blobFile(l.Descriptor.Digest)
	if _, err := s.base.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	if info, err := s.base.Lstat(name); err != nil || !info.Mode().IsRegular() {
		return
	}
	if err := makeDirs(s.root, blobsDir, map[string]bool{}); err != nil {
		return
	}
	if err := s.base.Rename(name, to); err != nil {
		u.o.Logger.Debug("cannot reuse a placed file", "path", name, "err", err)
	}
}

// readyWithoutStaging reports whether a destination where nothing can be staged holds the
// wanted model already: a volume that another pod filled and that is mounted read-only, or
// is full, or where another user's pull checks the same.
func (u *unpacking) readyWithoutStaging(ctx context.Context) bool {
	if u.verified.IsZero() {
		return false
	}
	there, err := OpenInstalled(u.dst)
	if err != nil || there.digest() != u.m.subject.Digest() || !there.complete {
		return false
	}
	checked, err := there.Check(ctx, u.verified, CheckOptions{Progress: u.o.Progress, Select: u.o.Select})
	if err != nil {
		u.o.Warn(err.Error())
		return false
	}
	u.res = UnpackResult{Path: there.dir, Files: checked.Files, Size: checked.Size, BytesReused: checked.Size,
		Partial: checked.Partial, AlreadyThere: true}
	return true
}

// inFurniture reports a difference that replacing the model leaves.
func (e *DirError) inFurniture() bool {
	return slices.ContainsFunc(slices.Concat(e.Extra, e.Links), func(name string) bool {
		top, _, _ := strings.Cut(name, "/")
		return isVolumeName(top)
	})
}
