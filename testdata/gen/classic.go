// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/aegis-oci/aegis-oci/internal/vectors"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/oms"
	"github.com/aegis-oci/aegis-oci/pkg/signature/sigstore"
	"github.com/aegis-oci/aegis-oci/pkg/signature/simplesigning"
)

// sigstoreAttached holds what is wrong about how a signature is attached.
func (g *gen) sigstoreAttached() {
	good := bytesOf(bundle(g.plain(), sigOf(g.p256, g.plain())))
	elsewhere := bundleReferrer(g.otherSubject, good)
	g.add("referrer-of-another-subject", "the signature is good, its manifest names another subject, the registry lists it here", subjectIs, "subject differs",
		withReferrer(elsewhere))
	otherPayload := st(g.otherSubject.Digest().Encoded(), sigstore.PredicateType, "{}")
	g.add("list-replaced", "the list under the fallback tag is replaced by that of another model", subjectIs, "subject differs",
		withReferrer(bundleReferrer(g.otherSubject, bytesOf(bundle(otherPayload, sigOf(g.p256, otherPayload))))))
	g.add("list-emptied", "nothing is attached", unsigned, "no signature attached")
	noSubject := bundleReferrer(g.modelSubject, good)
	noSubject.Text = strings.Replace(noSubject.Text, `,"subject":`+string(encode(g.modelSubject.Descriptor())), "", 1)
	g.add("referrer-without-subject", "its manifest names no subject", format, "names no subject", withReferrer(noSubject))
	sized := g.modelSubject.Descriptor()
	wrong := bundleReferrer(g.modelSubject, good)
	wrong.Text = strings.Replace(wrong.Text, fmt.Sprintf(`"size":%d`, sized.Size), fmt.Sprintf(`"size":%d`, sized.Size+1), 1)
	g.add("referrer-subject-size", "its manifest names the subject with another size", format, "another size or media type", withReferrer(wrong))
	lied := bundleReferrer(g.modelSubject, good)
	lied.Listed = "application/vnd.example.sbom"
	g.add("referrer-listed-as-another-type", "the listing calls the signature something else; it decides nothing", success, "", withReferrer(lied))
	hinted := referrer(g.modelSubject, sigstore.MediaType, sigstore.MediaType, good, map[string]string{
		sigstore.AnnotationPredicateType: sigstore.PredicateType, signature.AnnotationKeyVersion: "99",
	})
	g.add("referrer-false-version", "the unsigned hint names a version that there is not", success, "", withReferrer(hinted))
	g.add("referrer-beside-junk", "a forgery and something else are listed before the good one", success, "",
		withReferrer(bundleReferrer(g.modelSubject, bytesOf(bundle(g.plain(), sigOf(g.other, g.plain()))))),
		withReferrer(referrer(g.modelSubject, "application/vnd.example.sbom", "application/json", vectors.Blob{{Text: "{}"}}, nil)), withReferrer(lied))
}

func (g *gen) policies() {
	full := signature.Claims{SignedAt: signed, Expires: future, Repository: repository, Annotations: map[string]string{"env": "prod"},
		Builder: map[string]string{"repository": "acme/models"}}
	elsewhere := full
	elsewhere.Repository = "registry.example.com/staging/vad"
	good, bare := g.claims(full), g.claims(signature.Claims{})
	add := func(name, comment, rule, reason string, m vectors.Manifest, asks fields) {
		expect := policyRule
		if rule == "" {
			expect = success
		}
		g.add("policy-"+name, comment, expect, reason, withRule(rule), withReferrer(m), withPolicy(asks, trusts(g.p256)))
	}
	add("repository", "signed for the repository that is asked for", "", "", good, fields{"requireRepository": true})
	add("repository-copied", "copied here from another repository", "requireRepository", "signed for repository", g.claims(elsewhere), fields{"requireRepository": true})
	add("repository-missing", "a signature that names no repository", "requireRepository", "repository", bare, fields{"requireRepository": true})
	after := fields{"notBefore": signed.Add(time.Second).Format(time.RFC3339)}
	add("rollback", "an older digest, truly signed, is put back under the tag", "notBefore", "before", good, after)
	add("rollback-undated", "the same without a signing time", "notBefore", "signedAt", bare, after)
	add("age", "older than is allowed", "maxAge", "too old", good, fields{"maxAge": fields{"of": "claim", "is": "1h"}})
	add("age-undated", "a signature that does not say when it was made", "maxAge", "signedAt", bare, fields{"maxAge": fields{"of": "claim", "is": "1h"}})
	add("age-unstamped", "the key holder's word, where a timestamp is demanded", "maxAge", "RFC 3161", good, fields{"maxAge": fields{"of": "timestamp", "is": "876000h"}})
	add("annotation", "another value of a signed annotation", "annotations", "env", good, fields{"annotations": fields{"env": "dev"}})
	add("annotation-missing", "an annotation that is not signed", "annotations", "env", bare, fields{"annotations": fields{"env": "prod"}})
	add("builder", "signed by another job", "builder", "repository", good, fields{"builder": fields{"repository": "acme/loader"}})
	add("revoked-subject", "the digest is revoked, however well it is signed", "revoked", "is revoked", good,
		fields{"revoked": fields{"subjects": []string{g.modelSubject.Digest().String()}}})
	sum := sha256.Sum256(g.p256.spki())
	add("revoked-key", "the public key is revoked", "revoked", "is revoked", good,
		fields{"revoked": fields{"keys": []string{"sha256:" + hex.EncodeToString(sum[:])}}})
	add("formats", "a format that does not count", "formats", "does not count", good, fields{"formats": []string{"notary"}})

	// The bundle, which expires, is hidden; what is left was signed without claims.
	left := withClassic(classicManifest(nil, g.classicBy(g.p256, signature.Claims{})))
	g.add("hidden-bundle-formats", "only a .sig without an expiry is left where the policy wants bundles", policyRule, "does not count", withRule("formats"), left,
		withPolicy(fields{"formats": []string{"sigstore"}}, trusts(g.p256)))
	g.add("hidden-bundle-age", "only a .sig without a signing time is left where the policy bounds the age", policyRule, "signedAt", withRule("maxAge"), left,
		withPolicy(fields{"maxAge": fields{"of": "claim", "is": "876000h"}}, trusts(g.p256)))
	g.add("hidden-bundle-claims", "only an expired .sig is left: claims are in every format", expired, "expired at",
		withClassic(classicManifest(nil, g.classicBy(g.p256, signature.Claims{SignedAt: signed, Expires: past}))))
	g.add("threshold", "two signers in two formats", success, "", withReferrer(good),
		withClassic(classicManifest(nil, g.classicBy(g.other, full))), withPolicy(fields{"require": 2}, trusts(g.p256), trusts(g.other)))
	g.add("threshold-one-signer", "one signer in two formats counts once", policyRule, "1 of 2 signers", withRule("require"), withReferrer(good),
		withClassic(classicManifest(nil, g.classicBy(g.p256, full))), withPolicy(fields{"require": 2}, trusts(g.p256), trusts(g.other)))
}

func (g *gen) classicBy(k key, c signature.Claims) signature.Attachment {
	return made(k, must(simplesigning.Prepare(g.modelSubject, c)))
}

// classic holds the signatures under cosign's tag.
func (g *gen) classic() {
	const refused = "the key does not accept the signature"
	good := g.classicBy(g.p256, signature.Claims{SignedAt: signed, Expires: future})
	by := func(k key, payload []byte) option {
		s := k.sign(sha(signature.ECDSA, crypto.SHA256), 0, payload)
		return withClassic(classicManifest(nil, classicLayer(payload, b64(s))))
	}
	document := func(d digest.Digest, kind, optional string) []byte {
		return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":""},"image":{"docker-manifest-digest":%q},"type":%q},"optional":%s}`, d, kind, optional)
	}
	const kind = "cosign container image signature"
	here := g.modelSubject.Digest()
	plain := document(here, kind, "null")
	g.add("classic-good-p256", "a signature as it should be", success, "", withClassic(classicManifest(nil, good)))
	g.add("classic-good-ed25519", "a signature as it should be", success, "", withPolicy(nil, trusts(g.ed25519)),
		withClassic(classicManifest(nil, g.classicBy(g.ed25519, signature.Claims{}))))
	g.add("classic-good-rsa2048", "a signature as it should be", success, "", withPolicy(nil, trusts(g.rsa2048)),
		withClassic(classicManifest(nil, g.classicBy(g.rsa2048, signature.Claims{}))))
	g.add("classic-beside-others", "a good layer among one of another key and one that is no signature", success, "",
		withClassic(classicManifest(nil, g.classicBy(g.other, signature.Claims{}), good, classicLayer(plain, "none"))))
	g.add("classic-another-key", "signed by a key that is not trusted", sig, refused, by(g.other, plain))
	g.add("classic-other-digest", "the payload is for another digest", subjectIs, "subject differs", by(g.p256, document(g.otherSubject.Digest(), kind, "null")))
	g.add("classic-other-type", "a simple signing document of another protocol", statement, "its type is", by(g.p256, document(here, "atomic container signature", "null")))
	g.add("classic-duplicate-key", "the signed document names its image twice, of which readers take either", statement, "duplicate JSON key",
		by(g.p256, bytes.Replace(plain, []byte(`"image":`), []byte(`"image":{"docker-manifest-digest":"`+g.otherSubject.Digest().String()+`"},"image":`), 1)))
	g.add("classic-unknown-field", "the signed document has a critical field that nobody knows", statement, "unknown field",
		by(g.p256, bytes.Replace(plain, []byte(`"image":`), []byte(`"extra":1,"image":`), 1)))
	g.add("classic-unknown-claim", "a reserved name that is not known", statement, "unknown claim", by(g.p256, document(here, kind, `{"dev.aegis-oci.claim.later":"x"}`)))
	g.add("classic-expired", "its signed expiry has passed", expired, "expired at",
		withClassic(classicManifest(nil, g.classicBy(g.p256, signature.Claims{SignedAt: signed, Expires: past}))))
	g.add("classic-future", "it says that it was signed later than now", clock, "in the future",
		withClassic(classicManifest(nil, g.classicBy(g.p256, signature.Claims{SignedAt: future}))))
	g.add("classic-not-base64", "the annotation is no base64", format, "no signature in base64", withClassic(classicManifest(nil, classicLayer(plain, "!!"))))
	raw := g.p256.sign(sha(signature.ECDSA, crypto.SHA256), 0, plain)
	g.add("classic-der-trailing", "a byte after the DER: a second encoding of one signature", sig, refused,
		withClassic(classicManifest(nil, classicLayer(plain, b64(append(bytes.Clone(raw), 0))))))
	g.add("classic-malleated", "(r, n-s) instead of (r, s): valid, Transit makes both", success, "",
		withClassic(classicManifest(nil, classicLayer(plain, b64(malleated(raw, p256))))))
	other := g.otherSubject.Descriptor()
	g.add("classic-of-another-subject", "the manifest under the tag names another subject", subjectIs, "subject differs", withClassic(classicManifest(&other, good)))
}

// oms holds Model Signing bundles as signatures of a manifest.
func (g *gen) oms() {
	file := signature.File{Path: "model.bin", Digest: digest.FromString("vad\n")}
	draft := func(to signature.Subject, c signature.Claims) signature.Draft {
		return must(oms.Prepare(oms.Model{Name: "vad", Files: []signature.File{file}, Manifest: to}, c))
	}
	g.add("oms-good-p256", "a signature as it should be", success, "", withReferrer(attached(made(g.p256, draft(g.modelSubject, signature.Claims{SignedAt: signed})), g.modelSubject)))
	g.add("oms-other-digest", "the signed manifest is another", subjectIs, "subject differs",
		withReferrer(attached(made(g.p256, draft(g.otherSubject, signature.Claims{})), g.modelSubject)))
	g.add("oms-no-manifest", "files are signed, and for no manifest", statement, "names no manifest",
		withReferrer(attached(made(g.p256, draft(signature.Subject{}, signature.Claims{})), g.modelSubject)))
	g.add("oms-expired", "its signed expiry has passed", expired, "expired at",
		withReferrer(attached(made(g.p256, draft(g.modelSubject, signature.Claims{SignedAt: signed, Expires: past})), g.modelSubject)))
	// Under the annotation of the other format the same bytes are no signature.
	a := made(g.p256, draft(g.modelSubject, signature.Claims{}))
	g.add("oms-as-sigstore", "a Model Signing bundle that the referrer calls cosign's", statement, "predicate type is",
		withReferrer(bundleReferrer(g.modelSubject, bytesOf(a.Envelope))))
}
