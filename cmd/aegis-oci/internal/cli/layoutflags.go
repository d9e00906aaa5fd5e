// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
)

// layoutFlags turn REF into PATH[:TAG][@DIGEST].
type layoutFlags struct{ ociLayout bool }

func (l *layoutFlags) register(f *flagSet) {
	f.BoolVar(&l.ociLayout, "oci-layout", false, "REF is PATH[:TAG][@DIGEST] in an OCI image layout, a directory or a tar file")
}

func (l *layoutFlags) parse(s string) (aegis.Reference, error) {
	if l.ociLayout {
		ref, err := layout.ParseReference(s)
		if err != nil {
			return nil, err
		}
		return ref, nil
	}
	ref, err := parseRef(s)
	if err != nil {
		return nil, err
	}
	return ref, nil
}

// parseOne is parse for commands with one reference, which r says how to reach.
func (l *layoutFlags) parseOne(cmd *cobra.Command, r *registryFlags, s string) (aegis.Reference, error) {
	ref, err := l.parse(s)
	if err == nil && l.ociLayout {
		err = r.noRegistry(cmd, "REF is in a layout")
	}
	return ref, err
}

// repository is what --ref names for what is in a layout, "" where it does not.
func (l *layoutFlags) repository(cmd *cobra.Command, named string) (string, error) {
	if !l.ociLayout {
		// A variable may be there for other commands.
		if onCommandLine(cmd.Flags().Lookup("ref")) {
			return "", usagef("--ref goes with %s", layoutFlag(cmd))
		}
		return "", nil
	}
	if named == "" {
		return "", nil
	}
	repo, err := parseRef(named)
	if err != nil {
		return "", err
	}
	return repo.Name(), nil
}

// scope is the repository that a policy is matched with. A layout's own word about
// where it comes from is not taken.
func (l *layoutFlags) scope(cmd *cobra.Command, ref aegis.Reference, named string, trust *trustFlags) (string, error) {
	repo, err := l.repository(cmd, named)
	switch {
	case err != nil:
		return "", err
	case !l.ociLayout:
		return ref.Name(), nil
	case repo == "" && trust.policyFlags.given():
		return "", &usageError{msg: "a policy for a layout needs --ref", hint: "--ref registry.example.com/models/vad: the layout's own word is not trusted"}
	}
	return repo, nil
}

// layoutFlag names the flags by which --ref means something.
func layoutFlag(cmd *cobra.Command) string {
	switch cmd.Name() {
	case "copy":
		return "--from-oci-layout"
	case "verify":
		return "--dir or --oci-layout"
	}
	return "--oci-layout"
}

// withDigest makes want the digest that ref names.
func withDigest(ref aegis.Reference, want digest.Digest) (aegis.Reference, error) {
	const differs = "--digest differs from the reference's own digest"
	if want == "" {
		return ref, nil
	}
	switch r := ref.(type) {
	case registry.Reference:
		if r.Digest != "" && r.Digest != want {
			return nil, usagef(differs)
		}
		r.Digest = want
		return r, nil
	case layout.Reference:
		if r.Digest != "" && r.Digest != want {
			return nil, usagef(differs)
		}
		r.Digest = want
		return r, nil
	}
	return ref, nil
}
