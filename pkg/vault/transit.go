// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// Limits of one batch_input request. Vault takes 32 MiB a request and, since
// 1.20, 1 MiB a JSON string, which is 768 KiB in base64; one over-long item would
// fail its whole batch.
const (
	maxBatch        = 100
	maxBatchBytes   = 8 << 20
	maxMessageBytes = 768 << 10
)

// params is how Transit is told an algorithm. They belong to a request, not to
// an item of its batch. The whole message is sent, never prehashed: pure Ed25519
// needs it, Vault refuses prehashed=true for it and OpenBao would sign the hash.
type params struct {
	Hash      string `json:"hash_algorithm"`
	Algorithm string `json:"signature_algorithm"`
	Marshal   string `json:"marshaling_algorithm"`
	// Salt is "hash" for PSS, always: Transit's own default is the longest salt,
	// which COSE verifiers refuse. Empty where there is none.
	Salt string `json:"salt_length,omitempty"`
}

var hashNames = map[crypto.Hash]string{
	crypto.SHA256: "sha2-256", crypto.SHA384: "sha2-384", crypto.SHA512: "sha2-512",
}

// paramsFor maps the algorithms that format f allows for a key of type t to
// Transit's parameters, each set once. Transit ignores what its key type has no
// use for (the RSA scheme for ECDSA, the hash for Ed25519), so that one set can
// stand for several algorithms, and a batch need not know the type.
func paramsFor(f signature.Format, t signature.KeyType) []params {
	var sets []params
	seen := make(map[params]bool)
	for _, a := range signature.Algorithms(f, t) {
		p := params{Hash: hashNames[crypto.SHA256], Algorithm: "pkcs1v15", Marshal: "asn1"}
		if a.Family != signature.PureEd25519 {
			p.Hash = hashNames[a.Hash]
		}
		if a.Family == signature.RSAPSS {
			p.Algorithm, p.Salt = "pss", "hash"
		}
		if p.Hash != "" && !seen[p] {
			seen[p] = true
			sets = append(sets, p)
		}
	}
	return sets
}

// batchItem is one element of batch_input. The reference comes back with the
// result and shows that the order was kept.
type batchItem struct {
	Input     string `json:"input"`
	Signature string `json:"signature,omitempty"`
	Reference string `json:"reference"`
}

type batchRequest struct {
	params
	Items   []batchItem `json:"batch_input"`
	Version int         `json:"key_version,omitempty"`
}

// batchResult is one element of batch_results, of sign or of verify.
type batchResult struct {
	Signature  string `json:"signature"`
	KeyVersion int    `json:"key_version"`
	Valid      bool   `json:"valid"`
	Error      string `json:"error"`
	Reference  string `json:"reference"`
}

// decodeBatch checks that there is one result for each of n items, in order.
func decodeBatch(data json.RawMessage, n int) ([]batchResult, error) {
	var d struct {
		Results []batchResult `json:"batch_results"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return nil, fmt.Errorf("batch_results are not of the API's form")
	}
	if len(d.Results) != n {
		return nil, fmt.Errorf("%d results for %d items", len(d.Results), n)
	}
	for i, r := range d.Results {
		// Releases before references leave the field empty.
		if r.Reference != "" && r.Reference != strconv.Itoa(i) {
			return nil, fmt.Errorf("result %d answers another item", i)
		}
	}
	return d.Results, nil
}

// maxSignature bounds one signature string: RSA-4096 has 700 bytes.
const maxSignature = 4 << 10

var standardPrefix = regexp.MustCompile(`^vault:v([1-9][0-9]{0,9})$`)

// parseSignature splits vault:vN:BASE64. keyVersion is the version that the
// answer states beside it, zero if it does not. The prefix is a template of the
// key in OpenBao, so all before the last colon counts as prefix; where it has
// the standard form it must agree with keyVersion.
func parseSignature(s string, keyVersion int) (sig []byte, version int, err error) {
	if len(s) > maxSignature {
		return nil, 0, fmt.Errorf("a signature of %d bytes", len(s))
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return nil, 0, fmt.Errorf("a signature without a version prefix")
	}
	sig, err = base64.StdEncoding.Strict().DecodeString(s[i+1:])
	if err != nil || len(sig) == 0 || strings.ContainsAny(s[i+1:], "\r\n") {
		return nil, 0, fmt.Errorf("a signature that is not base64")
	}
	version = keyVersion
	if m := standardPrefix.FindStringSubmatch(s[:i]); m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > maxKeyVersion || keyVersion != 0 && n != keyVersion {
			return nil, 0, fmt.Errorf("a signature by version %s, said to be by version %d", m[1], keyVersion)
		}
		version = n
	}
	if version < 1 || version > maxKeyVersion {
		return nil, 0, fmt.Errorf("a signature of no known key version")
	}
	return sig, version, nil
}

func formatSignature(sig []byte, version int) string {
	return "vault:v" + strconv.Itoa(version) + ":" + base64.StdEncoding.EncodeToString(sig)
}
