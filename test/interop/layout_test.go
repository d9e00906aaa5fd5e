// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"path/filepath"
	"testing"
)

// oras writes a layout out of either kind of registry; the signature holds in it,
// offline, and from it.
func TestWeVerifyALayoutThatOrasWrote(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		ref := r.repo(t, "") + ":v1"
		r.push(t, ref, "--sign", "--key", key)
		stick := filepath.Join(r.home, "stick")
		r.must(t, "tools/oras", "cp", "-r", "--from-plain-http", "--to-oci-layout", ref, stick+":v1")

		r.aegis(t, exitOK, "verify", "--oci-layout", "--key", public, stick+":v1")
		out := filepath.Join(r.home, "out")
		r.aegis(t, exitOK, "pull", "--oci-layout", "--key", public, "-o", out, stick+":v1")
		sameTree(t, filepath.Join(r.home, "model"), out)
		r.aegis(t, exitOK, "copy", "--key", public, "--from-oci-layout", stick+":v1", r.repo(t, "-site")+":v1")
		accepts(t, "cosign", r.cosignVerify(t, public, r.repo(t, "-site")+":v1"))
	})
}

// What we write, oras copies on with its referrers, from a directory and from a tar.
func TestOrasReadsOurLayouts(t *testing.T) {
	onBoth(t, func(t *testing.T, r *rig) {
		key, public := r.key(t, "", "ecdsa-p256")
		ref := r.repo(t, "") + ":v1"
		r.push(t, ref, "--sign", "--key", key)
		for _, stick := range []string{filepath.Join(r.home, "stick"), filepath.Join(r.home, "stick.tar")} {
			r.aegis(t, exitOK, "copy", "--key", public, "--to-oci-layout", ref, stick+":v1")
			site := r.repo(t, "-site"+filepath.Ext(stick)) + ":v1"
			r.must(t, "tools/oras", "cp", "-r", "--from-oci-layout", "--to-plain-http", stick+":v1", site)
			r.aegis(t, exitOK, "verify", "--key", public, site)
			accepts(t, "cosign", r.cosignVerify(t, public, site))
		}
	})
}

// A layout that oras wrote is signed in place, and oras carries both signatures.
func TestWeSignInALayoutThatOrasWrote(t *testing.T) {
	r := withReferrers(t)
	key, public := r.key(t, "", "ecdsa-p256")
	ref := r.push(t, r.repo(t, "")+":v1")
	stick := filepath.Join(r.home, "stick")
	r.must(t, "tools/oras", "cp", "--from-plain-http", "--to-oci-layout", ref, stick+":v1")
	r.aegis(t, exitRejected, "verify", "--oci-layout", "--key", public, stick+":v1")
	r.aegis(t, exitOK, "sign", "--quiet", "--oci-layout", "--key", key, stick+":v1")
	r.aegis(t, exitOK, "verify", "--oci-layout", "--key", public, stick+":v1")
	r.must(t, "tools/oras", "cp", "-r", "--from-oci-layout", "--to-plain-http", stick+":v1", r.repo(t, "-site")+":v1")
	r.aegis(t, exitOK, "verify", "--key", public, r.repo(t, "-site")+":v1")
}
