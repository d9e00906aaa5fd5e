// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"slices"
	"strings"
	"testing"
)

// signer is a program with the format that it signs in.
type signer struct {
	name   string
	format string // as aegis-oci calls it
	sign   func(t *testing.T, c *column, ref string) result
}

var signers = []signer{
	{"aegis-oci, sigstore", "sigstore", withAegis("sigstore")},
	{"aegis-oci, cosign-tag", "cosign-tag", withAegis("cosign-tag")},
	{"aegis-oci, notary", "notary", withAegis("notary")},
	{"aegis-oci, notary-cose", "notary-cose", withAegis("notary-cose")},
	{"aegis-oci, oms", "oms", withAegis("oms")},
	{"cosign 3.1.3, bundle", "sigstore", withCosign("cosign", "--use-signing-config=false")},
	{"cosign 3.1.3, tag", "cosign-tag", withCosign("cosign", "--use-signing-config=false", "--new-bundle-format=false")},
	{"cosign 2.6.5, bundle", "sigstore", withCosign("cosign2", "--new-bundle-format")},
	{"cosign 2.6.5, tag", "cosign-tag", withCosign("cosign2")},
	{"notation 1.3.2 with the plugin, jws", "notary", withNotation("jws")},
	{"notation 1.3.2 with the plugin, cose", "notary-cose", withNotation("cose")},
}

func withAegis(format string) func(*testing.T, *column, string) result {
	return func(t *testing.T, c *column, ref string) result {
		return run(t, c.command(t, "aegis-oci", "sign", "--quiet", "--key", c.own.uri, "--signature-format", format, ref))
	}
}

func withCosign(program string, flags ...string) func(*testing.T, *column, string) result {
	return func(t *testing.T, c *column, ref string) result {
		args := slices.Concat([]string{"sign", "--key", c.own.uri, "--tlog-upload=false", "--allow-http-registry", "-y"}, flags, []string{ref})
		return run(t, c.command(t, "tools/"+program, args...))
	}
}

// withNotation signs with the plugin.
func withNotation(format string) func(*testing.T, *column, string) result {
	return func(t *testing.T, c *column, ref string) result {
		id := strings.TrimPrefix(c.own.uri, "hashivault://")
		return c.under(c.own).notationSign(t, id, format, ref, "--plugin-config", "certChain="+c.own.cert)
	}
}

// under is the rig with notation's configuration for a key.
func (c *column) under(key trust) *rig {
	r := *c.rig
	r.config = key.config
	return &r
}

// verifier is a program with the way it is given the key.
type verifier struct {
	name   string
	verify func(t *testing.T, c *column, key trust, s signer, ref string) result
}

var verifiers = []verifier{
	{"aegis-oci, public key", func(t *testing.T, c *column, key trust, _ signer, ref string) result {
		return run(t, c.command(t, "aegis-oci", "verify", "--quiet", "--key", key.public, ref))
	}},
	{"aegis-oci, Transit key", func(t *testing.T, c *column, key trust, _ signer, ref string) result {
		return run(t, c.command(t, "aegis-oci", "verify", "--quiet", "--key", key.uri, ref))
	}},
	{"cosign 3.1.3", func(t *testing.T, c *column, key trust, _ signer, ref string) result {
		return c.cosignVerify(t, key.public, ref)
	}},
	{"cosign 2.6.5", func(t *testing.T, c *column, key trust, s signer, ref string) result {
		if s.format != "sigstore" && s.format != "oms" { // both are bundles, which it has to be told
			return c.cosign2Classic(t, key.public, ref)
		}
		return run(t, c.command(t, "tools/cosign2", "verify", "--new-bundle-format", "--trusted-root", c.trustedRoot,
			"--key", key.public, "--insecure-ignore-tlog=true", "--allow-http-registry", ref))
	}},
	{"notation 1.3.2", func(t *testing.T, c *column, key trust, _ signer, ref string) result {
		return c.under(key).notationVerify(t, ref)
	}},
}

// expectation is a failure that is known. An empty list stands for all.
type expectation struct {
	signed   []string // names of signers
	verified []string // names of verifiers; signing is "sign"
	keys     []string
	says     string // on stderr
	why      string
}

var (
	byNotary = []string{"aegis-oci, notary", "aegis-oci, notary-cose", "notation 1.3.2 with the plugin, jws", "notation 1.3.2 with the plugin, cose"}
	byOthers = []string{"aegis-oci, sigstore", "aegis-oci, cosign-tag", "aegis-oci, oms", "cosign 3.1.3, bundle", "cosign 3.1.3, tag", "cosign 2.6.5, bundle", "cosign 2.6.5, tag"}
	cosigns  = []string{"cosign 3.1.3", "cosign 2.6.5"}
)

// The first that fits a cell counts.
var expectations = []*expectation{
	{signed: []string{"aegis-oci, notary", "aegis-oci, notary-cose"}, verified: []string{"sign"}, keys: []string{"ed25519"}, says: "it does not take keys of type ed25519",
		why: noEd25519},
	{signed: []string{"notation 1.3.2 with the plugin, jws", "notation 1.3.2 with the plugin, cose"}, verified: []string{"sign"}, keys: []string{"ed25519"}, says: `a key of type "ed25519" cannot make Notary signatures`,
		why: noEd25519},
	{signed: []string{"aegis-oci, oms"}, verified: []string{"sign"}, keys: []string{"rsa-3072", "ed25519"}, says: "it does not take keys of type",
		why: "OpenSSF Model Signing takes ECDSA keys only."},
	{signed: []string{"cosign 3.1.3, bundle", "cosign 3.1.3, tag"}, verified: []string{"sign"}, keys: []string{"ecdsa-p384", "ed25519"}, says: "unexpected length of digest",
		why: "cosign 3.1.3 hashes for this key with SHA-384 or SHA-512, and its Vault client expects the length of SHA-256."},
	{signed: byNotary, verified: cosigns, says: "no signatures found",
		why: "cosign does not read Notary Project envelopes."},
	{signed: byOthers, verified: []string{"notation 1.3.2"}, says: "no signature is associated with",
		why: "notation reads Notary Project envelopes only."},
	{signed: []string{"aegis-oci, oms"}, verified: cosigns, keys: []string{"ecdsa-p256"}, says: "provided artifact digest does not match any digest in statement",
		why: "An OpenSSF Model Signing bundle is about the files; cosign looks for the manifest."},
	{signed: []string{"aegis-oci, oms"}, verified: cosigns, keys: []string{"ecdsa-p384"}, says: "could not verify envelope",
		why: "OpenSSF Model Signing hashes by the curve; cosign hashes for P-384 with SHA-256."},
	{signed: []string{"cosign 2.6.5, bundle", "cosign 2.6.5, tag"}, verified: []string{"aegis-oci, public key", "aegis-oci, Transit key"}, keys: []string{"ed25519"}, says: "does not accept the signature",
		why: brokenEd25519},
	{signed: []string{"cosign 2.6.5, bundle"}, verified: cosigns, keys: []string{"ed25519"}, says: "could not verify envelope",
		why: brokenEd25519},
	{signed: []string{"cosign 2.6.5, tag"}, verified: cosigns, keys: []string{"ed25519"}, says: "failed to verify signature",
		why: brokenEd25519},
}

const (
	noEd25519     = "The Notary Project has no algorithm for Ed25519."
	brokenEd25519 = "cosign 2.6.5 has Transit sign a digest as if it were the message: it exits 0, and nobody can verify the signature, cosign neither."
)

// expected is the failure that is written down for a cell, nil for none.
func expected(at cell) *expectation {
	if at.verified == "" {
		at.verified = "sign"
	}
	has := func(list []string, item string) bool { return len(list) == 0 || slices.Contains(list, item) }
	for _, e := range expectations {
		if has(e.signed, at.signed) && has(e.verified, at.verified) && has(e.keys, at.key) {
			return e
		}
	}
	return nil
}
