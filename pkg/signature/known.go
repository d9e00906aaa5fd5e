// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package signature

// KnownSPKIs returns the DER SubjectPublicKeyInfo of every public key that k is
// known to accept without asking anybody. It is empty for a key that a server
// holds and for one that certificates stand for.
func KnownSPKIs(k Key) [][]byte {
	switch k := k.(type) {
	case *PublicKeys:
		out := make([][]byte, len(k.keys))
		for i, p := range k.keys {
			out[i] = p.spki
		}
		return out
	case *all:
		var out [][]byte
		for _, part := range k.keys {
			out = append(out, KnownSPKIs(part)...)
		}
		return out
	}
	if spki := k.ID().SPKI; spki != nil {
		return [][]byte{spki}
	}
	return nil
}

// SameMessage reports whether both envelopes carry a signature over the same
// bytes in the same format. Under one key they are one signature, however often
// it was made, and whoever changed (r, s) into (r, n-s).
func (e *Envelope) SameMessage(o *Envelope) bool {
	return e.format == o.format && string(e.message) == string(o.message)
}
