// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package timestamp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/notaryproject/tspclient-go"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
)

// Judge trusts timestamp authorities by their roots. It asks nobody.
type Judge struct{ roots *x509.CertPool }

// NewJudge trusts the authorities whose certificates lead to one of the PEM
// certificates, each a self-signed authority's, as a trust store of type tsa has
// them. name is what the user calls the file. Errors are *signature.KeyFileError.
func NewJudge(name string, certificates []byte) (*Judge, error) {
	roots, err := ParseRoots(name, certificates)
	if err != nil {
		return nil, err
	}
	return &Judge{roots: roots}, nil
}

// ParseRoots reads PEM certificates of roots and nothing else. Errors are
// *signature.KeyFileError.
func ParseRoots(name string, certificates []byte) (*x509.CertPool, error) {
	certs, err := notary.ParseCertificates(name, certificates)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	for _, c := range certs {
		// An intermediate as an anchor would be trusted without its issuer's consent
		// ever being looked at.
		if !bytes.Equal(c.RawSubject, c.RawIssuer) || c.CheckSignatureFrom(c) != nil {
			return nil, &signature.KeyFileError{Name: name, Reason: fmt.Sprintf("the certificate %q is no self-signed authority's", c.Subject)}
		}
		roots.AddCert(c)
	}
	return roots, nil
}

// Judge judges one stamp as Verify does.
func (j *Judge) Judge(ctx context.Context, s signature.Stamp) (signature.Stamped, error) {
	return Verify(ctx, s, j.roots)
}

// maxAccuracy bounds what an authority says of its own clock. A stamp that could
// be of any day says nothing, and larger numbers overflow a time.Duration.
const maxAccuracy = time.Hour

// maxToken bounds what is parsed, in bytes: real tokens have less than 10 KiB,
// certificates included, and anybody can put other bytes there.
const maxToken = 64 << 10

// Verify judges a token: it must be signed by a certificate for timestamping
// alone that leads to one of roots (nil means the system's) and was valid then,
// and be over the stamp's content, with the stamp's hash or a stronger one.
// Revocation is not looked up. Errors are *Error.
func Verify(ctx context.Context, s signature.Stamp, roots *x509.CertPool) (signature.Stamped, error) {
	got, err := verify(ctx, s, roots)
	if err != nil {
		return signature.Stamped{}, &Error{Err: err}
	}
	return got, nil
}

func verify(ctx context.Context, s signature.Stamp, roots *x509.CertPool) (signature.Stamped, error) {
	if len(s.Token) > maxToken {
		return signature.Stamped{}, fmt.Errorf("a token of %d bytes, more than %d", len(s.Token), maxToken)
	}
	token, err := tspclient.ParseSignedToken(s.Token)
	if err != nil {
		return signature.Stamped{}, err
	}
	info, err := token.Info()
	if err != nil {
		return signature.Stamped{}, err
	}
	stamp, err := info.Validate(s.Content)
	if err != nil {
		return signature.Stamped{}, err
	}
	// A weaker hash than the signature's own would be the easier target.
	if n := len(info.MessageImprint.HashedMessage); n < s.Hash.Size() {
		return signature.Stamped{}, fmt.Errorf("a hash of %d bytes, where the signature's has %d", n, s.Hash.Size())
	}
	if a := info.Accuracy; a.Seconds < 0 || a.Seconds > int(maxAccuracy/time.Second) || a.Milliseconds < 0 || a.Milliseconds > 999 || a.Microseconds < 0 || a.Microseconds > 999 {
		return signature.Stamped{}, fmt.Errorf("an accuracy that is no time up to %s", maxAccuracy)
	}
	if roots == nil {
		if roots, err = x509.SystemCertPool(); err != nil {
			return signature.Stamped{}, err
		}
	}
	chain, err := token.Verify(ctx, x509.VerifyOptions{Roots: roots, CurrentTime: stamp.Value})
	if err != nil {
		return signature.Stamped{}, err
	}
	if err := checkChain(chain); err != nil {
		return signature.Stamped{}, err
	}
	return signature.Stamped{From: stamp.Value.Add(-stamp.Accuracy), Until: stamp.Value.Add(stamp.Accuracy), Chain: chain}, nil
}

// checkChain holds an authority's certificates against the signature
// specification of the Notary Project ("Certificate Requirements"), as far as the
// path validation before has not: purposes and issuance are its part.
func checkChain(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("no certificate chain")
	}
	for i, c := range chain {
		if reason := unfit(c, i == 0); reason != "" {
			return fmt.Errorf("certificate %d (%s): %s", i, c.Subject, reason)
		}
	}
	return nil
}

func unfit(c *x509.Certificate, leaf bool) string {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return "its RSA key is shorter than 2048 bits"
		}
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return "its curve is smaller than P-256"
		}
	default:
		return "its key is neither RSA nor ECDSA"
	}
	switch {
	case leaf && c.IsCA:
		return "it is an authority's and cannot stamp"
	case leaf && c.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "its key usage is not digital signature"
	case !leaf && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return "its key usage does not sign certificates"
	}
	return ""
}
