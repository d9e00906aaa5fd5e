// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"slices"
	"sync"
	"time"

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
	began      time.Time

	warnOnce sync.Once
}

func newRemembered(c *Client, cache *digestcache.Cache, repository string, began time.Time) *remembered {
	return &remembered{c: c, cache: cache, repository: repository, began: began}
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

// lookup returns the zero entry when nothing is known of the file as it was found.
func (r *remembered) lookup(src *model.Source) digestcache.Entry {
	key, ok := r.keyOf(src)
	if !ok {
		return digestcache.Entry{}
	}
	e, ok, err := r.cache.Lookup(key)
	if err != nil {
		r.warn(err)
	}
	if !ok {
		return digestcache.Entry{}
	}
	return e
}

// store remembers what was learnt, and that this repository has it now.
func (r *remembered) store(src *model.Source, d digest.Digest, was digestcache.Entry) {
	key, ok := r.keyOf(src)
	if !ok {
		return
	}
	if was.Digest == d && len(was.Repositories) > 0 && was.Repositories[0] == r.repository {
		return
	}
	repositories := []string{r.repository}
	if was.Digest == d {
		repositories = append(repositories, slices.DeleteFunc(slices.Clone(was.Repositories), func(s string) bool { return s == r.repository })...)
	}
	if _, err := r.cache.Store(src.Name(), key, r.began, digestcache.Entry{Digest: d, Repositories: repositories}); err != nil {
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
