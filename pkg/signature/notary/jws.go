// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/internal/strictjson"
)

// jwsEnvelope is the flattened JSON serialisation (RFC 7515, section 7.2.2;
// "JWS envelope" in the signature specification). No other field is allowed.
type jwsEnvelope struct {
	Payload   string    `json:"payload"`
	Protected string    `json:"protected"`
	Header    jwsHeader `json:"header"`
	Signature string    `json:"signature"`
}

// jwsHeader is not signed.
type jwsHeader struct {
	Token []byte   `json:"io.cncf.notary.timestampSignature,omitempty"`
	Chain [][]byte `json:"x5c"`
	Agent string   `json:"io.cncf.notary.signingAgent,omitempty"`
}

// jwsProtected is signed. Other names may be there when crit does not list them.
type jwsProtected struct {
	Alg         string   `json:"alg"`
	Cty         string   `json:"cty"`
	Crit        []string `json:"crit"`
	Expiry      string   `json:"io.cncf.notary.expiry,omitempty"`
	Scheme      string   `json:"io.cncf.notary.signingScheme"`
	SigningTime string   `json:"io.cncf.notary.signingTime"`
}

func encodeJWS(h header, payload []byte) (signedPart, error) {
	p := jwsProtected{
		Alg:         h.alg.jws,
		Cty:         PayloadType,
		Crit:        []string{headerScheme},
		Scheme:      scheme,
		SigningTime: h.signed.Format(time.RFC3339),
	}
	if !h.expiry.IsZero() {
		p.Crit = append(p.Crit, headerExpiry)
		p.Expiry = h.expiry.Format(time.RFC3339)
	}
	protected, err := json.Marshal(p)
	return signedPart{protected: protected, payload: payload}, err
}

// jwsMessage is the signing input (RFC 7515, section 5.1).
func (s signedPart) jwsMessage() []byte {
	return []byte(b64(s.protected) + "." + b64(s.payload))
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func finishJWS(s signedPart, raw []byte, u unprotected) ([]byte, error) {
	e := jwsEnvelope{
		Payload:   b64(s.payload),
		Protected: b64(s.protected),
		Header:    jwsHeader{Token: u.Token, Agent: u.Agent},
		Signature: b64(raw),
	}
	for _, c := range u.Chain {
		e.Header.Chain = append(e.Header.Chain, c.Raw)
	}
	return json.Marshal(e)
}

// parseJWS takes an envelope apart and checks the protected header.
func parseJWS(data []byte) (*parts, error) {
	var e struct {
		Payload   string          `json:"payload"`
		Protected string          `json:"protected"`
		Header    json.RawMessage `json:"header"`
		Signature string          `json:"signature"`
	}
	if err := strictjson.UnmarshalKnown(data, &e); err != nil {
		return nil, &ParseError{err.Error()}
	}
	var u jwsHeader
	// The unsigned header may hold what others put there.
	if err := json.Unmarshal(e.Header, &u); err != nil {
		return nil, &ParseError{"unsigned header: " + err.Error()}
	}
	p := &parts{token: u.Token, certs: u.Chain}
	var protected []byte
	for _, f := range []struct {
		name string
		text string
		into *[]byte
	}{{"payload", e.Payload, &p.payload}, {"protected", e.Protected, &protected}, {"signature", e.Signature, &p.raw}} {
		var err error
		// One encoding only: padding bits are not signed.
		if *f.into, err = base64.RawURLEncoding.Strict().DecodeString(f.text); err != nil || len(*f.into) == 0 || b64(*f.into) != f.text {
			return nil, &ParseError{f.name + " is not base64url"}
		}
	}
	p.message = []byte(e.Protected + "." + e.Payload)
	var err error
	p.header, err = parseProtected(protected)
	return p, err
}

func parseProtected(data []byte) (header, error) {
	var p jwsProtected
	if err := strictjson.Unmarshal(data, &p); err != nil {
		return header{}, &ParseError{"protected header: " + err.Error()}
	}
	var names map[string]json.RawMessage
	if err := json.Unmarshal(data, &names); err != nil {
		return header{}, &ParseError{"protected header: " + err.Error()}
	}
	present := func(name string) bool { _, ok := names[name]; return ok }
	if err := checkHeader(p.Scheme, p.Cty, p.Crit, present); err != nil {
		return header{}, err
	}
	h := header{alg: byJWS(p.Alg)}
	if h.alg.typ == "" {
		return header{}, &ParseError{fmt.Sprintf("algorithm %q", p.Alg)}
	}
	var err error
	if h.signed, err = parseTime(headerSigningTime, p.SigningTime); err != nil {
		return header{}, err
	}
	if present(headerExpiry) {
		h.expiry, err = parseTime(headerExpiry, p.Expiry)
	}
	return h, err
}

func parseTime(name, text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil || t.IsZero() {
		return time.Time{}, &ParseError{name + " is not an RFC 3339 time"}
	}
	return t, nil
}

// checkHeader holds what is the same in both envelopes. crit must list exactly
// what must be understood: an expiry that is not critical would be ignored by
// others, and what we do not know must not be passed over.
func checkHeader(gotScheme, cty string, crit []string, present func(string) bool) error {
	if gotScheme != scheme {
		return &ParseError{fmt.Sprintf("signing scheme %q, not %q", gotScheme, scheme)}
	}
	if cty != PayloadType {
		return &ParseError{fmt.Sprintf("content type %q, not %q", cty, PayloadType)}
	}
	if !slices.Contains(crit, headerScheme) {
		return &ParseError{headerScheme + " is not marked critical"}
	}
	if present(headerExpiry) && !slices.Contains(crit, headerExpiry) {
		return &ParseError{headerExpiry + " is not marked critical"}
	}
	seen := make(map[string]bool)
	for _, name := range crit {
		if seen[name] {
			return &ParseError{fmt.Sprintf("%q is marked critical twice", name)}
		}
		seen[name] = true
		switch name {
		case headerScheme, headerExpiry, headerSigningTime:
			if !present(name) {
				return &ParseError{fmt.Sprintf("%q is marked critical and is not there", name)}
			}
		default:
			return &ParseError{fmt.Sprintf("critical header %q is not understood", name)}
		}
	}
	return nil
}
