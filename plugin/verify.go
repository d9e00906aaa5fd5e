// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package plugin

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

type verifyRequest struct {
	Version   string            `json:"contractVersion"`
	Config    map[string]string `json:"pluginConfig"`
	Signature struct {
		Critical struct {
			ContentType string         `json:"contentType"`
			Scheme      string         `json:"signingScheme"`
			Extended    map[string]any `json:"extendedAttributes"`
		} `json:"criticalAttributes"`
		Unprocessed []string `json:"unprocessedAttributes"`
		Chain       [][]byte `json:"certificateChain"`
	} `json:"signature"`
	Policy struct {
		Identities []string `json:"trustedIdentities"`
		Checks     []string `json:"signatureVerification"`
	} `json:"trustPolicy"`
}

type verdict struct {
	Success bool   `json:"success"`
	Reason  string `json:"reason,omitempty"`
}

const (
	trustedIdentity = "SIGNATURE_VERIFIER.TRUSTED_IDENTITY"
	revocationCheck = "SIGNATURE_VERIFIER.REVOCATION_CHECK"
)

// verifySignature answers the checks that a trust policy delegates. No attribute
// is processed: there is none of ours.
func (p *Plugin) verifySignature(ctx context.Context, data []byte) (any, string, error) {
	var r verifyRequest
	if err := decode(data, &r); err != nil {
		return nil, "", err
	}
	if err := version(r.Version); err != nil {
		return nil, "", err
	}
	if len(r.Policy.Checks) == 0 {
		return nil, "", invalid("trustPolicy.signatureVerification is empty")
	}
	if len(r.Signature.Unprocessed) > 0 {
		return nil, "", invalid("the attributes %q are not known here", r.Signature.Unprocessed)
	}
	chain, err := certificates(r.Signature.Chain)
	if err != nil {
		return nil, "", err
	}
	results := make(map[string]verdict)
	for _, check := range r.Policy.Checks {
		switch check {
		case trustedIdentity:
			results[check], err = identityVerdict(chain[0], r.Policy.Identities)
		case revocationCheck:
			results[check], err = p.revocationVerdict(ctx, chain, r.Config)
		default:
			err = invalid("%q is no check of this plugin", check)
		}
		if err != nil {
			return nil, "", err
		}
	}
	return map[string]any{"verificationResults": results, "processedAttributes": []string{}}, "", nil
}

func certificates(ders [][]byte) ([]*x509.Certificate, error) {
	if len(ders) == 0 {
		return nil, invalid("signature.certificateChain is empty")
	}
	chain := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, invalid("certificate %d: %v", i, err)
		}
		chain[i] = c
	}
	if err := notary.CheckChain(chain); err != nil {
		return nil, invalid("%v", err)
	}
	return chain, nil
}

func identityVerdict(leaf *x509.Certificate, identities []string) (verdict, error) {
	ids, err := notary.ParseIdentities(identities)
	if err != nil {
		return verdict{}, invalid("%v", err)
	}
	if slices.ContainsFunc(ids, func(id notary.Identity) bool { return id.Matches(leaf) }) {
		return verdict{Success: true}, nil
	}
	return verdict{Reason: fmt.Sprintf("the subject %q is no trusted identity", leaf.Subject)}, nil
}

// ListOnly as the configuration's "revocation" has nobody asked over the network.
const ListOnly = "list"

// revocationVerdict looks the chain up in the list that the configuration names,
// and then where its certificates say. notation hands revocation over as a whole to
// a plugin that declares it, and looks nothing up itself. What cannot be told is no
// success: whether that is enforced or logged is for notation's trust policy.
func (p *Plugin) revocationVerdict(ctx context.Context, chain []*x509.Certificate, config map[string]string) (verdict, error) {
	revoked, given, err := p.Keys.Revoked(config)
	if err != nil {
		return verdict{}, err
	}
	for i, c := range chain {
		sum := sha256.Sum256(c.Raw)
		if revoked[hex.EncodeToString(sum[:])] {
			return verdict{Reason: fmt.Sprintf("certificate %d (%s) is revoked", i, c.Subject)}, nil
		}
	}
	named := false
	if p.LookUp != nil && config["revocation"] != ListOnly {
		var v verdict
		if v, named = online(p.LookUp(ctx, chain), chain); v.Reason != "" {
			return v, nil
		}
	}
	if !given && !named {
		return verdict{Reason: "no list of revoked certificates is given (--plugin-config revoked=FILE), and nobody named in the certificates was asked"}, nil
	}
	return verdict{Success: true}, nil
}

// online reads what was found: a reason where one is not good, and whether there
// was anybody to ask.
func online(found []Status, chain []*x509.Certificate) (v verdict, named bool) {
	if len(found) != len(chain) {
		return verdict{Reason: "the certificates were not looked up"}, false
	}
	for i, s := range found {
		named = named || !s.Unnamed
		switch {
		case s.Revoked:
			// Before what is only not known.
			return verdict{Reason: fmt.Sprintf("certificate %d (%s) is revoked by %s", i, chain[i].Subject, s.By)}, true
		case !s.Good && !s.Unnamed && v.Reason == "":
			v.Reason = fmt.Sprintf("whether certificate %d (%s) is revoked is not known: %s", i, chain[i].Subject, s.By)
		}
	}
	return v, named
}
