// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aegis-oci/aegis-oci/pkg/revocation"
	"github.com/aegis-oci/aegis-oci/pkg/signature"
	"github.com/aegis-oci/aegis-oci/pkg/signature/notary"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
	"github.com/aegis-oci/aegis-oci/plugin"
)

// PluginMain answers one invocation of notation-aegis and returns its exit code.
func PluginMain() int {
	ctx, stop := withSignals(context.Background())
	defer stop()
	// The error stream is the protocol's: warnings and notices have no place there.
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, env: newEnvironment(os.Environ()),
		quiet: true, retryTimeout: 30 * time.Second}
	p := &plugin.Plugin{
		Keys: &pluginKeys{app: a}, Version: strings.TrimPrefix(buildInfo().Version, "v"), URL: "https://github.com/aegis-oci/aegis-oci",
		Agent: userAgent(), Now: time.Now, LookUp: lookUp(revocation.New(revocation.Options{})),
	}
	code := p.Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	for _, f := range a.cleanup {
		f(closing)
	}
	return code
}

// lookUp is a checker as the plugin has it, which knows no server.
func lookUp(c *revocation.Checker) func(context.Context, []*x509.Certificate) []plugin.Status {
	return func(ctx context.Context, chain []*x509.Certificate) []plugin.Status {
		var found []plugin.Status
		for _, a := range c.Check(ctx, chain) {
			s := plugin.Status{Unnamed: a.Status == revocation.Unnamed, Good: a.Status == revocation.Good, Revoked: a.Status == revocation.Revoked, By: a.Source}
			if a.Err != nil {
				s.By = fmt.Sprintf("%s: %v", a.Source, a.Err)
			}
			found = append(found, s)
		}
		return found
	}
}

// pluginKeys opens Transit keys as the command line does, with the plugin's
// configuration in place of flags.
type pluginKeys struct{ app *app }

var _ plugin.Keys = (*pluginKeys)(nil)

// pluginConfigKeys are those of --plugin-config; none of them is a secret.
func pluginConfigKeys() []string {
	return []string{"vaultAddr", "namespace", "auth", "authMount", "role", "mount", "caCert", "certChain", "keySpec", "revoked", "revocation"}
}

func checkPluginConfig(config map[string]string) error {
	for k := range config {
		if !slices.Contains(pluginConfigKeys(), k) {
			return &plugin.Error{Code: plugin.Validation, Message: "--plugin-config " + k + ": the keys are " + strings.Join(pluginConfigKeys(), ", ")}
		}
	}
	return nil
}

// flags are the login's, from the environment's twins and then from config.
func (p *pluginKeys) flags(config map[string]string) (*vaultFlags, error) {
	if err := checkPluginConfig(config); err != nil {
		return nil, err
	}
	cmd, v := &cobra.Command{Use: "notation-aegis"}, &vaultFlags{}
	v.register(cmd.Flags())
	if err := p.app.env.applyTwins(cmd); err != nil {
		return nil, err
	}
	for key, flag := range map[string]string{
		"vaultAddr": "vault-addr", "namespace": "vault-namespace", "auth": "vault-auth", "authMount": "vault-auth-mount",
		"role": "vault-role", "caCert": "vault-cacert",
	} {
		if value := config[key]; value != "" {
			if err := cmd.Flags().Set(flag, value); err != nil {
				return nil, usagef("--plugin-config %s: %v", key, err)
			}
		}
	}
	if v.wrappedFile != "" {
		// notation starts a process for describe-key and another one to sign.
		return nil, usagef("a wrapped secret_id can be used once, and notation logs in twice: give a secret_id, or another login method")
	}
	return v, nil
}

var pluginVersion = regexp.MustCompile(`^[1-9][0-9]{0,8}$`)

// keyRef reads a key id: [MOUNT/]NAME[:VERSION], or the URI of the command line.
func (p *pluginKeys) keyRef(id string, config map[string]string) (vault.KeyRef, error) {
	uri := id
	if !vault.IsKeyRef(id) {
		name, version, versioned := strings.Cut(id, ":")
		if versioned && !pluginVersion.MatchString(version) || strings.ContainsAny(name, "?#") {
			return vault.KeyRef{}, usagef("key id %q is not of the form [MOUNT/]NAME[:VERSION]", id)
		}
		if uri = "hashivault://" + name; versioned {
			uri += "?version=" + version
		}
	}
	ref, err := vault.ParseKeyRef(uri, first(config["mount"], p.app.env["TRANSIT_SECRET_ENGINE_PATH"], "transit"))
	if err != nil {
		return vault.KeyRef{}, usagef("key id: %v", err)
	}
	return ref, nil
}

func (p *pluginKeys) chainOf(config map[string]string) ([]*x509.Certificate, error) {
	path := config["certChain"]
	if path == "" {
		return nil, nil
	}
	data, err := readFileBounded(path, maxKeyFile)
	if err != nil {
		return nil, usagef("--plugin-config certChain: %v", err)
	}
	return notary.ParseCertificates(path, data)
}

// asked is what a request says: how to reach Vault, which key, and what is known
// of the key without asking.
func (p *pluginKeys) asked(id string, config map[string]string) (*vaultFlags, vault.KeyRef, plugin.Key, error) {
	v, err := p.flags(config)
	if err != nil {
		return nil, vault.KeyRef{}, plugin.Key{}, err
	}
	ref, err := p.keyRef(id, config)
	if err != nil {
		return nil, vault.KeyRef{}, plugin.Key{}, err
	}
	k, err := p.fromConfig(config)
	return v, ref, k, err
}

// Describe answers without Vault when the configuration says it all.
func (p *pluginKeys) Describe(ctx context.Context, id string, config map[string]string) (plugin.Key, error) {
	v, ref, k, err := p.asked(id, config)
	if err != nil || k.Type != signature.KeyUnknown {
		return k, err
	}
	s, err := p.app.session(ctx, v)
	if err != nil {
		return plugin.Key{}, err
	}
	d, err := s.Details(ctx, ref)
	if err != nil {
		return plugin.Key{}, err
	}
	return plugin.Key{Type: d.Key}, nil
}

// fromConfig is what the configuration says of a key.
func (p *pluginKeys) fromConfig(config map[string]string) (plugin.Key, error) {
	chain, err := p.chainOf(config)
	if err != nil {
		return plugin.Key{}, err
	}
	k := plugin.Key{Chain: chain}
	if chain != nil {
		k.Type, _ = signature.TypeOf(chain[0].PublicKey)
	}
	if spec := config["keySpec"]; spec != "" {
		typ, ok := plugin.TypeOf(spec)
		if !ok {
			return plugin.Key{}, usagef("--plugin-config keySpec: %q is none of the contract's", spec)
		}
		if chain != nil && k.Type != typ {
			return plugin.Key{}, usagef("--plugin-config keySpec is %s and the certificate in certChain is of another type of key", spec)
		}
		k.Type = typ
	}
	return k, nil
}

// Open finds the version that signs: the one in the key id, that of the
// certificate given, or the newest that has a certificate.
func (p *pluginKeys) Open(ctx context.Context, id string, config map[string]string) (plugin.Key, error) {
	v, ref, k, err := p.asked(id, config)
	if err != nil {
		return plugin.Key{}, err
	}
	s, err := p.app.session(ctx, v)
	if err != nil {
		return plugin.Key{}, err
	}
	d, err := s.Details(ctx, ref)
	var e *vault.Error
	switch {
	case err == nil:
		if err := pickVersion(&k, &ref, d); err != nil {
			return plugin.Key{}, err
		}
	case !errors.As(err, &e) || e.Kind != vault.Denied || k.Type == signature.KeyUnknown:
		return plugin.Key{}, err
	}
	k.Signer, err = s.SignerWith(ctx, ref, vault.SignerOptions{AtOnce: true})
	return k, err
}

// pickVersion sets type, chain and version from what Vault says of the key.
func pickVersion(k *plugin.Key, ref *vault.KeyRef, d vault.KeyDetails) error {
	if k.Type != signature.KeyUnknown && k.Type != d.Key {
		return usagef("the key is of type %s, and --plugin-config says otherwise", d.Type)
	}
	k.Type = d.Key
	for _, v := range slices.Backward(d.Versions) {
		if v.Version < d.MinSign {
			continue
		}
		if k.Chain != nil {
			// The certificate given is of one version, which has to sign.
			if string(k.Chain[0].RawSubjectPublicKeyInfo) != string(v.SPKI) {
				continue
			}
		} else if len(v.Chain) == 0 {
			continue
		} else {
			chain, err := notary.ParseCertificates("the stored certificate chain", v.Chain)
			if err != nil {
				return err
			}
			k.Chain = chain
		}
		ref.Version = v.Version
		break
	}
	if ref.Version != 0 && ref.Version < d.Latest {
		k.Warning = fmt.Sprintf("version %d signs: version %d of the key has no certificate that is used", ref.Version, d.Latest)
	}
	return nil
}

// Classify maps Vault's refusals and mistakes in the configuration to the
// contract's codes.
func (p *pluginKeys) Classify(err error) plugin.Code {
	var (
		u    *usageError
		file *signature.KeyFileError
		e    *vault.Error
		none *noTokenError
	)
	switch {
	case errors.As(err, &u), errors.As(err, &file):
		return plugin.Validation
	case errors.As(err, &none):
		return plugin.AccessDenied
	case !errors.As(err, &e):
		return ""
	}
	switch e.Kind {
	case vault.Denied, vault.TokenInvalid, vault.NoToken, vault.LoginRefused, vault.NoIdentity, vault.LongLived, vault.WrappingUsed, vault.WrappingForeign:
		return plugin.AccessDenied
	case vault.BadRequest, vault.BadConfig, vault.Insecure, vault.KeyNotFound, vault.KeyUnsuitable, vault.NotAsked:
		return plugin.Validation
	case vault.RateLimited:
		return plugin.Throttled
	case vault.Unreachable:
		return plugin.Timeout
	}
	return plugin.Generic
}

var fingerprint = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Revoked reads a file of SHA-256 fingerprints, one a line.
func (p *pluginKeys) Revoked(config map[string]string) (map[string]bool, bool, error) {
	if err := checkPluginConfig(config); err != nil {
		return nil, false, err
	}
	if mode := config["revocation"]; mode != "" && mode != plugin.ListOnly {
		return nil, false, usagef("--plugin-config revocation: %q is not %q, the one value that there is", mode, plugin.ListOnly)
	}
	path := config["revoked"]
	if path == "" {
		return nil, false, nil
	}
	data, err := readFileBounded(path, maxKeyFile)
	if err != nil {
		return nil, false, usagef("--plugin-config revoked: %v", err)
	}
	revoked := make(map[string]bool)
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		sum := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(line, "sha256:"), ":", ""))
		// A line that cannot be read must not leave a certificate trusted.
		if _, err := hex.DecodeString(sum); err != nil || !fingerprint.MatchString(sum) {
			return nil, false, usagef("--plugin-config revoked: %q is no SHA-256 fingerprint", line)
		}
		revoked[sum] = true
	}
	return revoked, true, nil
}
