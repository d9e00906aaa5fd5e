// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/display"
	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/model"
	"github.com/aegis-oci/aegis-oci/pkg/nodecache"
)

type pullOptions struct {
	registryFlags
	vaultFlags
	trustFlags
	unpackFlags
	selectFlags
	layoutFlags
	ref        string
	verify     bool
	output     string
	digestFile string
}

// unpackFlags say what may happen to the destination.
type unpackFlags struct {
	replace       bool
	link          bool
	allowRollback bool
	skipUnknown   bool
	noResume      bool
	dropPageCache bool
	cache         string
	cacheMaxSize  string
}

func (u *unpackFlags) register(f *flagSet) {
	f.BoolVar(&u.replace, "replace", false, "replace another or a damaged verified model in the directory")
	f.BoolVar(&u.link, "link", false, "with --replace or --cache: take files as they are there, by hard links, instead of copies")
	f.BoolVar(&u.allowRollback, "allow-rollback", false, "accept a signature older than the installed model's")
	f.BoolVar(&u.skipUnknown, "skip-unknown", false, "go on without layers of unknown types")
	f.StringVar(&u.cache, "cache", "", "directory of files by their digest that the pulls of a node share")
	f.StringVar(&u.cacheMaxSize, "cache-max-size", "", "what the cache may hold, such as 200GiB; what was used longest ago goes first")
	f.BoolVar(&u.noResume, "no-resume", false, "keep nothing for a later run when this one fails")
	f.BoolVar(&u.dropPageCache, "drop-page-cache", false, "take each file out of the page cache when it is on the disk (Linux)")
}

// options opens the cache too; the command closes it at its end.
func (u *unpackFlags) options(a *app) (model.UnpackOptions, error) {
	cache, err := u.openCache(a)
	return model.UnpackOptions{
		Cache:         cache,
		Replace:       u.replace,
		Link:          u.link,
		AllowRollback: u.allowRollback,
		SkipUnknown:   u.skipUnknown,
		NoResume:      u.noResume,
		DropPageCache: u.dropPageCache,
	}, err
}

func (u *unpackFlags) openCache(a *app) (*nodecache.Cache, error) {
	size, err := parseSize("--cache-max-size", u.cacheMaxSize)
	if err != nil {
		return nil, err
	}
	if u.cache == "" {
		if size > 0 {
			return nil, usagef("--cache-max-size goes with --cache")
		}
		return nil, nil
	}
	cache, err := nodecache.Open(u.cache, nodecache.Options{MaxSize: size, Stall: a.retryTimeout})
	var unusable *nodecache.UnusableError
	if errors.As(err, &unusable) {
		a.warn("fetching past the cache " + u.cache + ": " + err.Error())
		return nil, nil
	}
	if err != nil {
		return nil, &usageError{msg: err.Error(), hint: "a directory of your own, or one that is sticky: install -d -m 1777 DIR"}
	}
	a.cleanup = append(a.cleanup, func(context.Context) {
		if err := cache.Close(); err != nil {
			a.warn("the cache: " + err.Error())
		}
	})
	return cache, nil
}

// parseSize reads a number of bytes; "" is zero.
func parseSize(flag, s string) (int64, error) {
	number, shift := strings.TrimSuffix(strings.TrimSuffix(s, "B"), "i"), 0
	if number != "" {
		if i := strings.IndexByte("KMGT", number[len(number)-1]&^0x20); i >= 0 {
			number, shift = number[:len(number)-1], 10*(i+1)
		}
	}
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return 0, usagef("%s %q is no number of bytes such as 500M, 200GiB or 1T", flag, s)
	}
	return n << shift, nil
}

func (a *app) pullCmd() *cobra.Command {
	o := &pullOptions{}
	cmd := &cobra.Command{
		Use:   "pull [flags] --key KEY | --policy FILE  -o DIR REF",
		Short: "Verify a model's signature, and only then fetch and extract it",
		Long: `Resolve REF once, verify the signatures attached to that digest, and only then
fetch the files, each hashed on its way to a staging place. They get their final
names when all are whole. Whatever is refused leaves nothing behind.

Example - in an init container, with Vault:
  aegis-oci pull --verify --key hashivault://aegis-model-sign -o /models/vad registry.example.com/models/vad:v1

Example - with a public key, no Vault:
  aegis-oci pull --key release.pub -o ./vad registry.example.com/models/vad:v1`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.runPull(cmd, o, args) },
	}
	f := cmd.Flags()
	f.BoolVar(&o.verify, "verify", true, "verify before extracting; --verify=false opens anything")
	f.StringVarP(&o.output, "output", "o", "", "directory for the model")
	f.StringVar(&o.digestFile, "digest-file", "", "write the manifest's digest to this file")
	o.unpackFlags.register(f)
	o.selectFlags.register(f, "fetch")
	f.StringVar(&o.ref, "ref", "", "with --oci-layout: the repository by which a policy's scope is chosen")
	o.layoutFlags.register(f)
	o.trustFlags.register(f)
	o.registryFlags.register(f)
	o.registerMirrors(f)
	o.registerRate(f)
	o.vaultFlags.register(f)
	return cmd
}

// checkVerify makes verification the default, and opening anything an explicit
// word that a platform can forbid.
func (o *pullOptions) checkVerify(a *app, cmd *cobra.Command) error {
	switch {
	case !o.verify && truthy(a.env[requireVerify]):
		return &usageError{msg: requireVerify + " forbids --verify=false", hint: "give --key KEY or --policy FILE"}
	case !o.verify && o.trustFlags.given():
		return &usageError{msg: "--verify=false conflicts with --key and --policy", hint: "leave --verify=false out"}
	case o.verify && !o.trustFlags.given():
		return &usageError{msg: "pull verifies, and needs to know what to trust", hint: trustHint}
	}
	return nil
}

func (a *app) runPull(cmd *cobra.Command, o *pullOptions, args []string) error {
	ctx := cmd.Context()
	if err := o.checkVerify(a, cmd); err != nil {
		return err
	}
	if err := o.selection().Check(); err != nil {
		return err
	}
	if o.output == "" {
		return &usageError{msg: "pull needs a directory", hint: "aegis-oci pull -o DIR ... " + args[0]}
	}
	ref, err := o.parseOne(cmd, &o.registryFlags, args[0])
	if err != nil {
		return err
	}
	scope, err := o.layoutFlags.scope(cmd, ref, o.ref, &o.trustFlags)
	if err != nil {
		return err
	}
	client, err := o.registryFlags.workflows(a, cmd)
	if err != nil {
		return err
	}
	p := aegis.PullOptions{Ref: ref, Dir: o.output}
	if p.Unpack, err = o.unpackFlags.options(a); err != nil {
		return err
	}
	p.Unpack.Select = o.selection()
	var r aegis.PullResult
	if o.verify {
		req, err := o.trustFlags.requirement(ctx, a, &o.vaultFlags, scope)
		if err != nil {
			return err
		}
		r, err = client.Pull(ctx, p, req)
		if err != nil {
			return err
		}
	} else if r, err = client.PullUnverified(ctx, p); err != nil {
		return err
	}
	return a.printWritten(r, func(w io.Writer) error { return pullText(w, r) }, writeDigest(o.digestFile, r.Digest))
}

func pullText(w io.Writer, r aegis.PullResult) error {
	word := "pulled    "
	if r.AlreadyThere {
		word = "unchanged "
	}
	fmt.Fprintf(w, "%s%s\n", word, r.Reference)
	fmt.Fprintf(w, "          %d files, %s in %s (%s fetched)\n", r.Files, display.Bytes(r.Size), r.Path, display.Bytes(r.BytesFetched))
	if r.Partial {
		fmt.Fprintln(w, "          a part of the model")
	}
	if !r.Verified {
		fmt.Fprintln(w, "NOT VERIFIED")
	}
	countedText(w, r.Signatures)
	return nil
}
