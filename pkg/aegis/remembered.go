// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/pkg/digestcache"
	"github.com/aegis-oci/aegis-oci/pkg/model"
)

// worthRemembering is the size from which a file is remembered: a smaller one is
// hashed as fast as its entry is read.
const worthRemembering = 128 << 10

// remembered is the digest cache of one push. Nothing about it is ever an error:
// without it files are read.
type remembered struct {
	c          *Client
	cache      *digestcache.Cache
	repository string
	trust      bool // what is found is not read again

	warnOnce sync.Once
}

func newRemembered(c *Client, cache *digestcache.Cache, repository string, trust bool) *remembered {
	return &remembered{c: c, cache: cache, repository: repository, trust: trust}
}

func (r *remembered) keyOf(src *model.Source) (digestcache.Key, bool) {
	if r.cache == nil || src.Size() < worthRemembering {
		return digestcache.Key{}, false
	}
	return digestcache.KeyOf(src.Name(), src.Info())
}

func (r *remembered) warn(err error) {
	r.warnOnce.Do(func() { r.c.warn(err.Error() + "; the files are read") })
}

// found is what is remembered of a file as it was found, which may be nothing.
type found struct {
	digestcache.Entry
	reading digestcache.Reading
	storing bool // what is learnt can be remembered
	again   bool // so can that it was found, and nothing else
}

// lookup is called before the file is read.
func (r *remembered) lookup(src *model.Source) (f found) {
	key, ok := r.keyOf(src)
	if !ok {
		return f
	}
	e, ok, err := r.cache.Lookup(key)
	if err != nil {
		r.warn(err)
	}
	f.Entry = e
	if ok && r.trust {
		f.again, f.reading = true, r.cache.Again(src.Name(), key)
	} else {
		f.reading, f.storing = r.cache.Begin(src.Name(), key)
	}
	return f
}

// store remembers what was learnt, and that this repository has it now.
func (r *remembered) store(d digest.Digest, was found) {
	if was.again && was.Digest != d {
		if err := r.cache.Forget(was.reading); err != nil {
			r.warn(err)
		}
		return
	}
	if !was.storing && !was.again {
		return
	}
	if was.Digest == d && len(was.Repositories) > 0 && was.Repositories[0] == r.repository {
		return
	}
	repositories := []string{r.repository}
	if was.Digest == d {
		repositories = append(repositories, slices.DeleteFunc(slices.Clone(was.Repositories), func(s string) bool { return s == r.repository })...)
	}
	if _, err := r.cache.Store(was.reading, digestcache.Entry{Digest: d, Repositories: repositories}); err != nil {
		r.warn(err)
	}
}

func (r *remembered) trim() {
	if r.cache == nil {
		return
	}
	if err := r.cache.Trim(); err != nil {
		r.warn(err)
	}
}
