// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

// maxTrustStore bounds the files of one trust store.
const maxTrustStore = 256

// readTrustStore reads the certificates, PEM or DER, in truststore/x509/TYPE/NAME
// below a folder of notation's (Notary Project specification, "Trust Store").
func readTrustStore(config, store string) ([]byte, error) {
	kind, name, _ := strings.Cut(store, ":")
	dir := filepath.Join(config, "truststore", "x509", kind, name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	if len(entries) > maxTrustStore {
		return nil, fmt.Errorf("%s: more than %d files", dir, maxTrustStore)
	}
	var out bytes.Buffer
	for _, e := range entries {
		b, err := readFileBounded(filepath.Join(dir, e.Name()), maxKeyFile)
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(b, []byte("-----BEGIN ")) {
			b = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: b})
		}
		out.Write(b)
		out.WriteByte('\n')
	}
	if out.Len() == 0 {
		return nil, errors.New(dir + " is empty")
	}
	return out.Bytes(), nil
}

// notationConfig is the folder in which notation keeps its trust stores.
func (e environment) notationConfig() (string, error) {
	if dir := e["NOTATION_CONFIG"]; dir != "" {
		return dir, nil
	}
	var dir string
	switch home := e["HOME"]; {
	case runtime.GOOS == "windows":
		dir = e["AppData"]
		if dir == "" {
			dir = e["APPDATA"]
		}
	case runtime.GOOS == "darwin" && home != "":
		dir = filepath.Join(home, "Library", "Application Support")
	case e["XDG_CONFIG_HOME"] != "":
		dir = e["XDG_CONFIG_HOME"]
	case home != "":
		dir = filepath.Join(home, ".config")
	}
	if dir == "" {
		return "", errors.New("neither NOTATION_CONFIG nor a home is set")
	}
	return filepath.Join(dir, "notation"), nil
}

var storeName = regexp.MustCompile(`^[a-zA-Z0-9_.-]+$`)

// complete continues a chain out of the trust store that --trust-store names. A
// chain that is there neither as a file nor in Transit begins there too, with the
// certificate of the key that signs.
func (s *signFlags) complete(env environment, signer *vault.Signer, chain []*x509.Certificate) ([]*x509.Certificate, error) {
	if !storeName.MatchString(s.trustStore) || s.trustStore == "." || s.trustStore == ".." {
		return nil, usagef("--trust-store %q is not the name of a trust store", s.trustStore)
	}
	config, err := env.notationConfig()
	if err != nil {
		return nil, usagef("--trust-store: %v", err)
	}
	data, err := readTrustStore(config, "ca:"+s.trustStore)
	if err != nil {
		return nil, &usageError{msg: fmt.Sprintf("--trust-store: %v", err), hint: "notation cert add --type ca --store " + s.trustStore + " CERTIFICATE"}
	}
	store, err := notary.ParseCertificates("trust store ca:"+s.trustStore, data)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 && signer.ID().SPKI == nil {
		return nil, &usageError{
			msg:  fmt.Sprintf("%s does not say which public key it is, so that no certificate can be found for it", signer.ID().Name),
			hint: "--cert-chain FILE with the key's own certificate, or \"read\" on the Transit key",
		}
	}
	return notary.Complete(chain, store, signer.ID().SPKI)
}
