// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package aegis

import (
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/signature"
)

// KeyResult is the result of key show.
type KeyResult struct {
	Key    string `json:"key"`
	Type   string `json:"type"`
	Latest int    `json:"latestVersion"`
	// MinVerify and MinSign are Transit's limits: older versions verify or sign
	// nothing.
	MinVerify int `json:"minVerifyVersion"`
	MinSign   int `json:"minSignVersion"`
	// Formats are the signature formats that take the type.
	Formats  []signature.Format `json:"formats"`
	Versions []KeyVersion       `json:"versions"`
}

// KeyVersion is one version of a key.
type KeyVersion struct {
	Version int `json:"version"`
	// Signs and Verifies say what the server still does with it.
	Signs     bool   `json:"signs"`
	Verifies  bool   `json:"verifies"`
	PublicKey string `json:"publicKey"`
	// Certificates are those stored with the version, leaf first.
	Certificates []KeyCertificate `json:"certificates"`
}

// KeyCertificate is one certificate, as trust policies want to know it.
type KeyCertificate struct {
	Identity  string    `json:"identity"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// Problem says why Notary verifiers would refuse the chain, on its first
	// certificate.
	Problem string `json:"problem,omitempty"`
}

// PublicKeyResult is the result of key public.
type PublicKeyResult struct {
	Key string `json:"key"`
	// PublicKeys is PEM, one block for each version, oldest first.
	PublicKeys string `json:"publicKeys"`
	Versions   []int  `json:"versions"`
}

// CertificateResult is the result of key certificate.
type CertificateResult struct {
	Key     string `json:"key"`
	Version int    `json:"keyVersion"`
	// Identity is how a trust policy names the certificate's subject.
	Identity  string    `json:"identity"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	// Certificates is PEM, leaf first.
	Certificates string `json:"certificates"`
	Installed    bool   `json:"installed"`
}

// RequestResult is the result of key csr.
type RequestResult struct {
	Key     string `json:"key"`
	Version int    `json:"keyVersion"`
	// Request is PEM (PKCS #10).
	Request string `json:"request"`
}
