// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package wycheproof_test runs the vectors of Project Wycheproof through the
// verification that every signature format uses.
package wycheproof_test

import (
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// suite is one file of vectors.
type suite struct {
	Groups []struct {
		PEM   string `json:"publicKeyPem"`
		Tests []struct {
			ID      int    `json:"tcId"`
			Comment string `json:"comment"`
			Message string `json:"msg"`
			Sig     string `json:"sig"`
			Result  string `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

func load(t *testing.T, file string) suite {
	t.Helper()
	raw, err := fs.ReadFile(wycheproof.TestVectors, file+"_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var s suite
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// tally is how many vectors of each result there were.
type tally struct{ valid, invalid, acceptable int }

// judged are the suites whose algorithm is that of the format for the key.
var judged = []struct {
	file    string
	formats []signature.Format
	want    tally
	// acceptable are the acceptable vectors that pass; the others fail.
	acceptable []int
}{
	{"ecdsa_secp256r1_sha256", []signature.Format{signature.Sigstore, signature.CosignTag, signature.OMS, signature.Notary, signature.NotaryCOSE}, tally{174, 310, 0}, nil},
	{"ecdsa_secp384r1_sha256", []signature.Format{signature.Sigstore, signature.CosignTag}, tally{162, 310, 0}, nil},
	{"ecdsa_secp384r1_sha384", []signature.Format{signature.OMS, signature.Notary, signature.NotaryCOSE}, tally{194, 310, 0}, nil},
	{"ecdsa_secp521r1_sha512", []signature.Format{signature.OMS, signature.Notary, signature.NotaryCOSE}, tally{232, 310, 0}, nil},
	{"ed25519", []signature.Format{signature.Sigstore, signature.CosignTag}, tally{88, 63, 0}, nil},
	{"rsa_signature_2048_sha256", []signature.Format{signature.Sigstore, signature.CosignTag}, tally{9, 249, 1}, nil},
	{"rsa_signature_3072_sha256", []signature.Format{signature.Sigstore, signature.CosignTag}, tally{8, 250, 1}, nil},
	{"rsa_signature_4096_sha256", []signature.Format{signature.Sigstore, signature.CosignTag}, tally{7, 250, 1}, nil},
	{"rsa_pss_2048_sha256_mgf1_32", []signature.Format{signature.Notary, signature.NotaryCOSE}, tally{63, 45, 0}, nil},
	{"rsa_pss_4096_sha512_mgf1_64", []signature.Format{signature.Notary, signature.NotaryCOSE}, tally{132, 47, 0}, nil},
}

func TestSuites(t *testing.T) {
	t.Parallel()
	for _, c := range judged {
		for _, f := range c.formats {
			t.Run(c.file+"/"+string(f), func(t *testing.T) {
				t.Parallel()
				var got tally
				var passed []int
				each(t, load(t, c.file), f, func(id int, comment, result string, accepted bool) {
					switch result {
					case "valid":
						got.valid++
					case "invalid":
						got.invalid++
					case "acceptable":
						got.acceptable++
						if accepted {
							passed = append(passed, id)
						}
						return
					}
					if accepted != (result == "valid") {
						t.Errorf("%d, %s: accepted %t, and it is %s", id, comment, accepted, result)
					}
				})
				if got != c.want {
					t.Errorf("%+v vectors, want %+v", got, c.want)
				}
				if !slices.Equal(passed, c.acceptable) {
					t.Errorf("of the acceptable ones %v pass, want %v", passed, c.acceptable)
				}
			})
		}
	}
}

// Not run: suites of SHA-3, SHAKE, SHA-224 and SHA-512/t beyond those below and of
// other salts and MGF hashes (no format has them), P-521 with SHA-256 and RSA 3072
// with PSS and SHA-384 (Wycheproof has no such suite), and JSON Web Signatures
// (Wycheproof has another header than Notary's, so that not one could be read).

// each asks the key of every group about every vector, in a batch.
func each(t *testing.T, s suite, f signature.Format, tell func(id int, comment, result string, accepted bool)) {
	t.Helper()
	for _, g := range s.Groups {
		key, err := signature.ParsePublicKeys("wycheproof", []byte(g.PEM))
		if err != nil {
			t.Fatal(err)
		}
		envs := make([]*signature.Envelope, len(g.Tests))
		for i, v := range g.Tests {
			envs[i] = signature.NewEnvelope(f, unhex(t, v.Message), unhex(t, v.Sig), func() (signature.Statement, error) {
				return signature.Statement{Size: int64(v.ID)}, nil
			})
		}
		for i, o := range signature.Open(t.Context(), key, envs) {
			v := g.Tests[i]
			if o.Err != nil && (!errors.Is(o.Err, signature.ErrInvalid) || o.Statement.Size != 0) {
				t.Errorf("%d: %v, and says %+v", v.ID, o.Err, o.Statement)
			}
			if o.Err == nil && o.Statement.Size != int64(v.ID) {
				t.Errorf("%d: the statement of another", v.ID)
			}
			tell(v.ID, v.Comment, v.Result, o.Err == nil)
		}
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// swapped are suites of another algorithm than the format's for that key: not one
// vector may pass, the valid ones too.
var swapped = []struct {
	file   string
	format signature.Format
	count  int
	// passes are vectors that happen to be made with the format's algorithm.
	passes []int
}{
	{"ecdsa_secp256r1_sha512", signature.Sigstore, 554, nil},
	{"ecdsa_secp256r1_sha3_256", signature.Sigstore, 482, nil},
	{"ecdsa_secp384r1_sha384", signature.Sigstore, 504, nil},
	{"ecdsa_secp384r1_sha512", signature.Notary, 542, nil},
	{"ecdsa_secp384r1_sha256", signature.OMS, 472, nil},
	{"ecdsa_secp521r1_sha512", signature.Sigstore, 542, nil},
	{"ecdsa_secp256r1_sha256_p1363", signature.Sigstore, 262, nil},
	{"ecdsa_secp384r1_sha384_p1363", signature.OMS, 280, nil},
	{"ecdsa_secp521r1_sha512_p1363", signature.OMS, 318, nil},
	{"ed25519", signature.Notary, 151, nil},
	{"ed25519", signature.OMS, 151, nil},
	{"rsa_signature_2048_sha256", signature.Notary, 259, []int{257}},
	{"rsa_signature_2048_sha512", signature.Sigstore, 259, []int{221}},
	{"rsa_signature_3072_sha384", signature.Sigstore, 259, []int{222}},
	{"rsa_pss_2048_sha256_mgf1_32", signature.Sigstore, 108, []int{108}},
	{"rsa_pss_2048_sha256_mgf1_0", signature.Notary, 103, []int{69}},
	{"rsa_pss_2048_sha1_mgf1_20", signature.Notary, 88, nil},
	{"rsa_pss_2048_sha256_mgf1sha1_20", signature.Notary, 108, nil},
	{"rsa_pss_2048_sha384_mgf1_48", signature.Notary, 141, nil},
	{"rsa_pss_2048_sha512_256_mgf1_32", signature.Notary, 115, nil},
	{"rsa_pss_3072_sha256_mgf1_32", signature.Notary, 108, nil},
	{"rsa_pss_4096_sha256_mgf1_32", signature.Notary, 108, nil},
	{"rsa_pss_4096_sha384_mgf1_48", signature.Notary, 141, nil},
	{"rsa_pss_4096_sha512_mgf1_32", signature.Notary, 177, nil},
}

func TestAnotherAlgorithmNeverPasses(t *testing.T) {
	t.Parallel()
	for _, c := range swapped {
		t.Run(fmt.Sprintf("%s/%s", c.file, c.format), func(t *testing.T) {
			t.Parallel()
			count := 0
			var passes []int
			each(t, load(t, c.file), c.format, func(id int, comment, _ string, accepted bool) {
				count++
				if accepted {
					passes = append(passes, id)
					t.Logf("%d: %s", id, comment)
				}
			})
			if count != c.count || !slices.Equal(passes, c.passes) {
				t.Errorf("%d vectors, want %d; %v pass, want %v", count, c.count, passes, c.passes)
			}
		})
	}
}

// refused are suites of keys that no format takes: the key itself is refused.
var refused = []struct {
	file string
	keys int
}{
	{"ecdsa_secp256k1_sha256", 109},
	{"ecdsa_secp224r1_sha256", 105},
	{"ecdsa_brainpoolP256r1_sha256", 108},
	{"rsa_signature_8192_sha256", 1},
	{"rsa_pss_2048_sha256_mgf1_32_params", 1}, // id-RSASSA-PSS, which no format has
	{"rsa_pss_4096_sha512_mgf1_64_params", 1},
	{"ed448", 15},
}

func TestKeysOfOtherKindsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range refused {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			keys := 0
			for _, g := range load(t, c.file).Groups {
				keys++
				if block, _ := pem.Decode([]byte(g.PEM)); block == nil {
					t.Fatal("the suite shows no key")
				}
				var bad *signature.KeyFileError
				if key, err := signature.ParsePublicKeys("wycheproof", []byte(g.PEM)); !errors.As(err, &bad) || key != nil {
					t.Errorf("the key is taken: %v, %v", key, err)
				}
			}
			if keys != c.keys {
				t.Errorf("%d keys, want %d", keys, c.keys)
			}
		})
	}
}
