// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/aegis-oci/aegis-oci/pkg/digestcache"
)

// digestCacheFlags say where digests of files are remembered between pushes.
type digestCacheFlags struct {
	dir   string
	none  bool
	trust bool
}

func (d *digestCacheFlags) register(f *flagSet) {
	f.StringVar(&d.dir, "digest-cache", "", "directory that remembers the digests of unchanged files, in place of aegis-oci/digests in the user's cache")
	f.BoolVar(&d.none, "no-digest-cache", false, "remember no digests and believe none")
	f.BoolVar(&d.trust, "trust-digest-cache", false, "with --sign, sign by remembered digests too, without reading the files again")
}

// open returns nil where there is no cache. Only one that was asked for is missed
// loudly; one that somebody else could have written always is.
func (d *digestCacheFlags) open(a *app) (*digestcache.Cache, error) {
	if d.none {
		if d.trust {
			return nil, usagef("--trust-digest-cache and --no-digest-cache exclude each other")
		}
		return nil, nil
	}
	dir := d.dir
	if dir == "" {
		if dir = a.defaultDigestCache(); dir == "" {
			return nil, nil
		}
	}
	c, err := digestcache.Open(dir, nil)
	if err != nil {
		var refused *digestcache.RefusedError
		if d.dir != "" || errors.As(err, &refused) {
			a.warn(err.Error() + "; it is not used")
		} else {
			a.logger.Debug("no digest cache", "reason", err.Error())
		}
		return nil, nil
	}
	a.cleanup = append(a.cleanup, func(context.Context) { _ = c.Close() })
	return c, nil
}

// defaultDigestCache follows the XDG base directory specification, in which a
// relative path is no path. It is empty where there is no home.
func (a *app) defaultDigestCache() string {
	base := a.env["XDG_CACHE_HOME"]
	if !filepath.IsAbs(base) {
		home := a.home()
		if !filepath.IsAbs(home) {
			return ""
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "aegis-oci", "digests")
}
