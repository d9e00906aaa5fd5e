// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package notary

import (
	"bytes"
	"fmt"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// Labels of COSE headers (RFC 9052, section 3.1; RFC 9360 for x5chain).
const (
	labelAlg     = int64(1)
	labelCrit    = int64(2)
	labelCty     = int64(3)
	labelX5Chain = int64(33)

	tagSign1 = 18
	tagEpoch = 1
)

// coseSign1 is COSE_Sign1 (RFC 9052, section 4.2) inside tag 18.
type coseSign1 struct {
	_           struct{} `cbor:",toarray"`
	Protected   []byte
	Unprotected map[any]cbor.RawMessage
	Payload     []byte
	Signature   []byte
}

// codec is how COSE is written and read: deterministic (RFC 8949, section 4.2),
// and without anything that two readers could take for two things.
type codec struct {
	enc cbor.EncMode
	dec cbor.DecMode
}

func newCodec() (codec, error) {
	e := cbor.CoreDetEncOptions()
	e.Time, e.TimeTag = cbor.TimeUnix, cbor.EncTagRequired
	enc, err := e.EncMode()
	if err != nil {
		return codec{}, err
	}
	dec, err := cbor.DecOptions{
		DupMapKey:        cbor.DupMapKeyEnforcedAPF,
		IndefLength:      cbor.IndefLengthForbidden,
		UTF8:             cbor.UTF8RejectInvalid,
		IntDec:           cbor.IntDecConvertSignedOrFail,
		MaxNestedLevels:  8,
		MaxArrayElements: 64,
		MaxMapPairs:      64,
	}.DecMode()
	return codec{enc, dec}, err
}

func encodeCOSE(h header, payload []byte) (signedPart, error) {
	c, err := newCodec()
	if err != nil {
		return signedPart{}, err
	}
	crit := []any{headerScheme}
	p := map[any]any{
		labelAlg:          h.alg.cose,
		labelCty:          PayloadType,
		headerScheme:      scheme,
		headerSigningTime: cbor.Tag{Number: tagEpoch, Content: h.signed.Unix()},
	}
	if !h.expiry.IsZero() {
		crit = append(crit, headerExpiry)
		p[headerExpiry] = cbor.Tag{Number: tagEpoch, Content: h.expiry.Unix()}
	}
	p[labelCrit] = crit
	protected, err := c.enc.Marshal(p)
	return signedPart{protected: protected, payload: payload}, err
}

// coseMessage is the Sig_structure (RFC 9052, section 4.4), without external data.
func (s signedPart) coseMessage() ([]byte, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	return c.enc.Marshal([]any{"Signature1", s.protected, []byte{}, s.payload})
}

func finishCOSE(s signedPart, raw []byte, u unprotected) ([]byte, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	certs := make([][]byte, len(u.Chain))
	for i, cert := range u.Chain {
		certs[i] = cert.Raw
	}
	h := map[any]any{labelX5Chain: certs}
	if u.Agent != "" {
		h[headerAgent] = u.Agent
	}
	if u.Token != nil {
		h[headerTimestamp] = u.Token
	}
	return c.enc.Marshal(cbor.Tag{Number: tagSign1, Content: []any{s.protected, h, s.payload, raw}})
}

// parseCOSE takes an envelope apart and checks the protected header.
func parseCOSE(data []byte) (*parts, error) {
	c, err := newCodec()
	if err != nil {
		return nil, err
	}
	var tagged cbor.RawTag
	if err := c.dec.Unmarshal(data, &tagged); err != nil || tagged.Number != tagSign1 {
		return nil, &ParseError{"it is no tagged COSE_Sign1"}
	}
	var m coseSign1
	if err := c.dec.Unmarshal(tagged.Content, &m); err != nil {
		return nil, &ParseError{"COSE_Sign1: " + err.Error()}
	}
	if len(m.Payload) == 0 || len(m.Signature) == 0 || len(m.Protected) == 0 {
		return nil, &ParseError{"payload, signature or protected header is missing"}
	}
	p := &parts{payload: m.Payload, raw: m.Signature}
	if p.message, err = (signedPart{m.Protected, m.Payload}).coseMessage(); err != nil {
		return nil, err
	}
	if raw, ok := m.Unprotected[labelX5Chain]; ok {
		if err := c.dec.Unmarshal(raw, &p.certs); err != nil {
			return nil, &ParseError{"x5chain is not a list of certificates"}
		}
	}
	if raw, ok := m.Unprotected[headerTimestamp]; ok {
		if err := c.dec.Unmarshal(raw, &p.token); err != nil {
			return nil, &ParseError{headerTimestamp + " is not a byte string"}
		}
	}
	p.header, err = c.parseProtected(m.Protected)
	return p, err
}

func (c codec) parseProtected(data []byte) (header, error) {
	var fields map[any]cbor.RawMessage
	if err := c.dec.Unmarshal(data, &fields); err != nil {
		return header{}, &ParseError{"protected header: " + err.Error()}
	}
	var (
		alg         int64
		crit        []string
		cty, scheme string
	)
	for _, f := range []struct {
		label any
		into  any
	}{{labelAlg, &alg}, {labelCrit, &crit}, {labelCty, &cty}, {headerScheme, &scheme}} {
		if err := c.dec.Unmarshal(fields[f.label], f.into); err != nil {
			return header{}, &ParseError{fmt.Sprintf("protected header %v is missing or of another type", f.label)}
		}
	}
	present := func(name string) bool { _, ok := fields[name]; return ok }
	if err := checkHeader(scheme, cty, crit, present); err != nil {
		return header{}, err
	}
	h := header{alg: byCOSE(alg)}
	if h.alg.typ == "" {
		return header{}, &ParseError{fmt.Sprintf("algorithm %d", alg)}
	}
	var err error
	if h.signed, err = c.parseEpoch(headerSigningTime, fields[headerSigningTime]); err != nil {
		return header{}, err
	}
	if present(headerExpiry) {
		h.expiry, err = c.parseEpoch(headerExpiry, fields[headerExpiry])
	}
	return h, err
}

// parseEpoch reads tag 1 over an integer: whole seconds, as the specification
// demands, and a year that time can print.
func (c codec) parseEpoch(name string, raw cbor.RawMessage) (time.Time, error) {
	bad := &ParseError{name + " is not a time in whole seconds"}
	var t cbor.RawTag
	var seconds int64
	if len(raw) == 0 || c.dec.Unmarshal(raw, &t) != nil || t.Number != tagEpoch ||
		bytes.HasPrefix(t.Content, []byte{0xc0}) || c.dec.Unmarshal(t.Content, &seconds) != nil ||
		seconds <= 0 || seconds > math.MaxUint32*4 {
		return time.Time{}, bad
	}
	return time.Unix(seconds, 0).UTC(), nil
}
