// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aegis-oci/aegis-oci/internal/servertest"
)

// matrixKeys are the columns of the table.
var matrixKeys = []string{"ecdsa-p256", "ecdsa-p384", "rsa-3072", "ed25519"}

// cell is a judgement of one program on what another has signed. With an empty
// verifier it is the signing itself.
type cell struct{ signed, verified, key, server, registry string }

// outcome is how a cell went; note is empty where it succeeded, else why not.
type outcome struct {
	ok   bool
	note string
}

// matrix collects the outcomes of all columns.
var matrix = struct {
	sync.Mutex
	cells map[cell]outcome
	met   map[*expectation]bool
}{cells: map[cell]outcome{}, met: map[*expectation]bool{}}

// TestMatrix has every program sign with every type of Transit key, and every
// program judge it: on HashiCorp's Vault and on OpenBao, on a registry with the
// referrers API and on one without. What is not in expectations has to succeed,
// and what is there has to fail and say what is written there. Whoever accepts
// has to refuse the same signature under another key of the same type.
func TestMatrix(t *testing.T) {
	servers := map[string]*servertest.Server{"Vault": servertest.Vault(t), "OpenBao": servertest.SharedStack(t)}
	api, fallback := withReferrers(t), withoutReferrers(t)
	installed := &rig{vault: api.vault, home: t.TempDir(), config: t.TempDir()}
	installed.installPlugin(t)
	t.Run("cells", func(t *testing.T) {
		for server, vault := range servers {
			for registry, on := range map[string]*rig{"referrers API": api, "tag fallback": fallback} {
				for _, key := range matrixKeys {
					t.Run(server+"/"+registry+"/"+key, func(t *testing.T) {
						t.Parallel()
						r := &rig{vault: vault, registry: on.registry, storage: on.storage, home: t.TempDir()}
						runColumn(t, r, installed.config, cell{server: server, registry: registry, key: key})
					})
				}
			}
		}
	})
	holdThePage(t)
}

// trust is what a verifier is given: one key, in each of the ways that they take.
type trust struct {
	uri          string
	public, cert string // PEM files
	config       string // XDG_CONFIG_HOME of notation; it trusts the certificate
}

// column is one type of key on one server and one registry.
type column struct {
	*rig
	at            cell
	own, stranger trust
	plugins       string // XDG_CONFIG_HOME with the plugin
	trustedRoot   string // for cosign 2.6: an empty one
}

func runColumn(t *testing.T, r *rig, plugins string, at cell) {
	c := &column{rig: r, at: at, plugins: plugins, trustedRoot: filepath.Join(r.home, "trusted-root.json")}
	write(t, c.trustedRoot, []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`))
	c.own, c.stranger = c.trust(t, ""), c.trust(t, "-stranger")
	for i, s := range signers {
		ref := r.push(t, r.repo(t, "-"+strconv.Itoa(i))+":v1")
		at := c.at
		at.signed = s.name
		if !c.judge(t, at, s.sign(t, c, ref)) {
			continue
		}
		c.hasFormat(t, s, ref)
		for _, v := range verifiers {
			at.verified = v.name
			if c.judge(t, at, v.verify(t, c, c.own, s, ref)) {
				if got := v.verify(t, c, c.stranger, s, ref); got.code == exitOK {
					t.Errorf("%s by %s accepts under another key:\n%s", v.name, s.name, got.stdout)
				}
			}
		}
	}
}

// hasFormat fails the test unless the signature has the format that the row is
// named after, and it is the only one.
func (c *column) hasFormat(t *testing.T, s signer, ref string) {
	t.Helper()
	got := c.aegis(t, exitOK, "inspect", "--quiet", "--format", "go-template={{range .signatures}}{{.format}} {{end}}", ref)
	if strings.TrimSpace(got.stdout) != s.format {
		t.Errorf("%s: attached is %q, want one %s", s.name, got.stdout, s.format)
	}
}

// judge records a cell, and fails the test if it is not what is expected.
func (c *column) judge(t *testing.T, at cell, got result) bool {
	t.Helper()
	want, ok := expected(at), got.code == exitOK
	switch {
	case !ok && want != nil && strings.HasPrefix(at.verified, "aegis-oci") && got.code != exitRejected:
		t.Errorf("%+v: exit %d, want %d", at, got.code, exitRejected)
	case ok && want != nil:
		t.Errorf("%+v: succeeds, against what is written: %s", at, want.why)
	case !ok && want == nil:
		t.Errorf("%+v: exit %d\n%s%s", at, got.code, got.stdout, got.stderr)
	case !ok && !strings.Contains(got.stderr, want.says):
		t.Errorf("%+v: exit %d, and does not say %q:\n%s", at, got.code, want.says, got.stderr)
	}
	result := outcome{ok: ok}
	if want != nil {
		result.note = want.why
	}
	matrix.Lock()
	defer matrix.Unlock()
	matrix.cells[at] = result
	matrix.met[want] = true
	return ok
}

// trust makes a Transit key with a certificate, which notation trusts.
func (c *column) trust(t *testing.T, suffix string) trust {
	t.Helper()
	keyName := name(t) + suffix
	// Of an ed25519 key the private half is exported, for its certificate.
	c.vault.Write(t, "transit/keys/"+keyName, map[string]any{"type": c.at.key, "exportable": c.at.key == "ed25519"})
	made := trust{uri: "hashivault://" + keyName, public: filepath.Join(c.home, keyName+".pub")}
	write(t, made.public, c.vault.PublicKeyPEM(t, keyName, 0))
	if c.at.key == "ed25519" {
		made.cert = filepath.Join(c.home, keyName+".crt")
		write(t, made.cert, selfSigned(t, c.export(t, keyName)))
	} else {
		made.cert = c.certificate(t, made.uri)
	}
	under := *c.rig
	under.notary(t, made.cert, acme, nil)
	made.config = under.config
	plugin := filepath.Join(made.config, pluginFile)
	if err := os.MkdirAll(filepath.Dir(plugin), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(c.plugins, pluginFile), plugin); err != nil {
		t.Fatal(err)
	}
	return made
}

// pluginFile is where notation has installed the plugin.
var pluginFile = filepath.Join("notation", "plugins", "aegis", "notation-aegis")

func (c *column) export(t *testing.T, keyName string) crypto.Signer {
	t.Helper()
	data, _ := c.vault.Read(t, "transit/export/signing-key/"+keyName+"/1")["data"].(map[string]any)
	versions, _ := data["keys"].(map[string]any)
	text, _ := versions["1"].(string)
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != ed25519.PrivateKeySize {
		t.Fatalf("%s is not exported as an ed25519 key: %v", keyName, err)
	}
	return ed25519.PrivateKey(raw)
}

// selfSigned makes the certificate that aegis-oci refuses to make: Notary has no
// algorithm for the key.
func selfSigned(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		Subject:  pkix.Name{Country: []string{"US"}, Province: []string{"WA"}, Organization: []string{"Acme"}, CommonName: "models"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
