// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/timestamp"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// signFlags say how to sign; push and sign share them.
type signFlags struct {
	key          string
	publicKey    string
	formats      []string
	expiry       time.Duration
	bundle       string
	signatureDir string
	noBuilder    bool
	certChain    string
	trustStore   string
	tsaURL       string
	tsaRoots     string
}

func (s *signFlags) register(f *flagSet) {
	f.StringVar(&s.key, "key", "", "Transit key to sign with: hashivault://[MOUNT/]NAME[?version=N&namespace=NS]")
	f.StringVar(&s.publicKey, "public-key", "", "PEM file to check the new signature with, for a token that may only sign")
	f.StringSliceVar(&s.formats, "signature-format", []string{string(signature.Sigstore)}, "signature format: sigstore, notary (jws), notary-cose (cose), cosign-tag, oms (repeatable or comma separated)")
	f.StringVar(&s.certChain, "cert-chain", "", "PEM file with the key's certificate and its issuers, leaf first, for the notary formats (default: what Transit holds for the key version)")
	f.StringVar(&s.trustStore, "trust-store", "", "notation's trust store (type ca) of that name: issuers that the key's chain lacks are taken from it, and its certificate too where there is none")
	f.DurationVarP(&s.expiry, "expiry", "e", 0, "how long the signature holds (0 = for ever)")
	s.registerTimestamp(f)
	f.StringVar(&s.bundle, "bundle", "", "write the signature to this file too")
	f.StringVar(&s.signatureDir, "signature-dir", "", "write every signature into this directory too")
	f.BoolVar(&s.noBuilder, "no-builder", false, "do not sign which CI job this is: repository, ref, sha, workflow_ref and run_id of its identity token")
}

// registerTimestamp registers the flags of the timestamp authority.
func (s *signFlags) registerTimestamp(f *flagSet) {
	f.StringVar(&s.tsaURL, "timestamp-url", "", "RFC 3161 timestamp authority that stamps the signatures of the sigstore and notary formats")
	f.StringVar(&s.tsaRoots, "timestamp-root-cert", "", "PEM file with the timestamp authority's root (default: the system's roots)")
}

// timestamper opens the timestamp authority; nil without one.
func (s *signFlags) timestamper() (signature.Timestamper, error) {
	if s.tsaURL == "" {
		return nil, nil
	}
	var roots *x509.CertPool
	if s.tsaRoots != "" {
		data, err := readFileBounded(s.tsaRoots, maxKeyFile)
		if err != nil {
			return nil, &usageError{msg: fmt.Sprintf("--timestamp-root-cert: %v", err)}
		}
		if roots, err = timestamp.ParseRoots(s.tsaRoots, data); err != nil {
			return nil, err
		}
	}
	authority, err := timestamp.NewAuthority(s.tsaURL, roots, nil)
	if err != nil {
		return nil, &usageError{msg: err.Error(), hint: "--timestamp-url http://timestamp.example.com"}
	}
	return authority, nil
}

// used returns the first flag that only makes sense when signing.
func (s *signFlags) used() string {
	switch {
	case s.key != "":
		return "--key"
	case s.publicKey != "":
		return "--public-key"
	case s.expiry != 0:
		return "--expiry"
	case s.bundle != "":
		return "--bundle"
	case s.signatureDir != "":
		return "--signature-dir"
	case s.noBuilder:
		return "--no-builder"
	case s.certChain != "":
		return "--cert-chain"
	case s.trustStore != "":
		return "--trust-store"
	case s.tsaURL != "":
		return "--timestamp-url"
	}
	return ""
}

// check finds what is wrong with the flags before anybody is asked anything.
func (s *signFlags) check() error {
	if s.key == "" {
		return &usageError{msg: "signing needs --key", hint: "--key hashivault://NAME"}
	}
	if s.expiry < 0 || (s.expiry > 0 && s.expiry < time.Second) {
		return usagef("--expiry must be at least one second")
	}
	if len(s.formats) == 0 {
		return usagef("--signature-format is empty")
	}
	if s.bundle != "" && len(s.formats) > 1 {
		return &usageError{msg: "--bundle takes one signature format", hint: "--signature-dir DIR"}
	}
	if s.certChain != "" && !aegis.NeedCertificates(s.parsed()) {
		return &usageError{msg: "--cert-chain goes with the notary formats", hint: "--signature-format notary"}
	}
	if s.trustStore != "" && !aegis.NeedCertificates(s.parsed()) {
		return &usageError{msg: "--trust-store goes with the notary formats", hint: "--signature-format notary"}
	}
	if s.tsaURL != "" && !aegis.CarryStamps(s.parsed()) {
		return &usageError{msg: "--timestamp-url goes with the formats sigstore and notary", hint: "--signature-format sigstore"}
	}
	if s.tsaRoots != "" && s.tsaURL == "" {
		return usagef("--timestamp-root-cert goes with --timestamp-url")
	}
	return aegis.CheckFormats(s.parsed(), signature.KeyUnknown)
}

func (s *signFlags) parsed() []signature.Format {
	out := make([]signature.Format, len(s.formats))
	for i, f := range s.formats {
		out[i], _ = signature.ParseFormat(strings.TrimSpace(f))
	}
	return out
}

// signing opens the key; annotations are signed claims. atOnce means that nothing
// long comes between this and the signature.
func (s *signFlags) signing(ctx context.Context, a *app, v *vaultFlags, annotations map[string]string, atOnce bool) (*aegis.Signing, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	given, err := s.givenCertificates()
	if err != nil {
		return nil, err
	}
	spki, err := s.givenKey(a, given)
	if err != nil {
		return nil, err
	}
	signer, err := a.signer(ctx, v, s.key, vault.SignerOptions{SPKI: spki, AtOnce: atOnce})
	if err != nil {
		return nil, err
	}
	if err := aegis.CheckFormats(s.parsed(), signer.ID().Type); err != nil {
		return nil, err
	}
	chain, err := s.certificates(a.env, signer, given)
	if err != nil {
		return nil, err
	}
	stamper, err := s.timestamper()
	if err != nil {
		return nil, err
	}
	self, err := a.selfVerifyKey(ctx, v, signer, s.key, s.publicKey)
	if err != nil {
		return nil, err
	}
	signing := &aegis.Signing{
		Signer:      signer,
		SelfVerify:  self,
		Formats:     s.parsed(),
		Expiry:      s.expiry,
		Annotations: annotations,

		Certificates: chain,
		Timestamper:  stamper,
		Agent:        userAgent(),
	}
	if a.jwt != nil && !s.noBuilder {
		signing.Builder = a.jwt.BuilderClaims()
	}
	return signing, nil
}

// givenCertificates reads --cert-chain, nil without one.
func (s *signFlags) givenCertificates() ([]*x509.Certificate, error) {
	if s.certChain == "" {
		return nil, nil
	}
	data, err := readFileBounded(s.certChain, maxKeyFile)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--cert-chain: %v", err)}
	}
	return notary.ParseCertificates(s.certChain, data)
}

// givenKey is the one public key that the flags say signs: what they name checks
// the signature, so that the key in Vault need not be read. nil where they name
// none or several, or where a certificate has to be read from the key.
func (s *signFlags) givenKey(a *app, chain []*x509.Certificate) ([]byte, error) {
	if chain == nil && aegis.NeedCertificates(s.parsed()) {
		return nil, nil
	}
	if s.publicKey != "" {
		k, err := a.publicKey(s.publicKey)
		if err != nil {
			return nil, err
		}
		return k.ID().SPKI, nil
	}
	// A trust store finds the certificate of the key that signs, which may be
	// another than the first of the file.
	if chain != nil && s.trustStore == "" {
		if _, known := signature.TypeOf(chain[0].PublicKey); known {
			return chain[0].RawSubjectPublicKeyInfo, nil
		}
	}
	return nil, nil
}

// certificates is the chain for the formats that need one: the one given, or what
// Transit holds for the version that signs, completed from the trust store.
func (s *signFlags) certificates(env environment, signer *vault.Signer, given []*x509.Certificate) ([]*x509.Certificate, error) {
	if !aegis.NeedCertificates(s.parsed()) {
		return given, nil
	}
	chain := given
	if data := signer.CertificateChain(); chain == nil && data != nil {
		var err error
		if chain, err = notary.ParseCertificates("certificate chain of "+signer.ID().Name, data); err != nil {
			return nil, err
		}
	}
	if s.trustStore != "" {
		return s.complete(env, signer, chain)
	}
	if chain == nil {
		return nil, &usageError{
			msg:  fmt.Sprintf("the notary formats need a certificate, and %s%s holds none that may be read", signer.ID().Name, versionText(signer.ID().Version)),
			hint: `--cert-chain FILE, --trust-store NAME, or: aegis-oci key certificate --self-signed --subject "C=US,ST=WA,O=Acme,CN=models" --install ` + s.key,
		}
	}
	return chain, nil
}

// checkOutputs finds what write would find when all is signed.
func (s *signFlags) checkOutputs() error {
	return cmp.Or(checkReplaced("bundle", s.bundle), checkMade("signature-dir", s.signatureDir))
}

// write leaves the signatures as files.
func (s *signFlags) write(made []aegis.SignatureMade) error {
	for _, m := range made {
		if s.bundle != "" {
			if err := writeFile(s.bundle, m.Envelope); err != nil {
				return err
			}
		}
		if s.signatureDir == "" {
			continue
		}
		if err := os.MkdirAll(s.signatureDir, 0o755); err != nil {
			return err
		}
		name := m.Digest.Encoded() + "." + string(m.Format) + extension(m.Format)
		if err := os.WriteFile(filepath.Join(s.signatureDir, name), m.Envelope, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// extension is .json but for the one format that is binary.
func extension(f signature.Format) string {
	if f == signature.NotaryCOSE {
		return ".cbor"
	}
	return ".json"
}

// annotationFlag is -a k=v, repeatable.
type annotationFlag struct{ pairs []string }

func (f *annotationFlag) register(fs *flagSet, usage string) {
	fs.StringArrayVarP(&f.pairs, "annotation", "a", nil, usage)
}

func (f *annotationFlag) parse() (map[string]string, error) {
	if len(f.pairs) == 0 {
		return nil, nil
	}
	out := make(map[string]string, len(f.pairs))
	for _, p := range f.pairs {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return nil, usagef("-a %q is not of the form key=value", p)
		}
		if _, twice := out[k]; twice {
			return nil, usagef("-a %s is given twice", k)
		}
		out[k] = v
	}
	return out, nil
}
