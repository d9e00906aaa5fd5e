// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// CredentialOptions say where credentials come from. The first of these that
// knows the registry wins: what is given here, then ConfigFiles in order, then
// DockerConfigDir. None means anonymous.
type CredentialOptions struct {
	Username, Password string
	// IdentityToken is an OAuth2 refresh token for the registry's token endpoint.
	IdentityToken string
	// ConfigFiles are files in the format of docker's config.json, which is that
	// of a .dockerconfigjson pull secret too, or folders that hold one of either
	// name. Each must exist, unless credentials are given above.
	ConfigFiles []string
	// DockerConfigDir is the folder of docker's own configuration, "" for none.
	// It need not exist.
	DockerConfigDir string
}

// Credential is what a registry's token endpoint, or basic authentication, takes.
type Credential struct {
	Username, Password string
	IdentityToken      string
}

// maxConfig bounds a docker configuration file, in bytes.
const maxConfig = 4 << 20

// dockerConfig is what we read of docker's config.json.
type dockerConfig struct {
	path        string
	Auths       map[string]dockerAuth `json:"auths"`
	CredsStore  string                `json:"credsStore"`
	CredHelpers map[string]string     `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

type credentialChain struct {
	given   auth.Credential
	configs []*dockerConfig
	// deferred is why a configuration cannot be read that need not be there; it counts
	// only when a registry asks for credentials.
	deferred error
	// exact leaves out patterns: what opens all of a company's registries is not for a
	// mirror that has its domain.
	exact bool
}

// newCredentialChain reads the files that o names. One that cannot be read is an error; to a
// mirror's chain it is what comes of being asked, for the registry's either had the same error,
// or does without files.
func newCredentialChain(o CredentialOptions, mirrors bool) (*credentialChain, error) {
	chain := &credentialChain{exact: mirrors, given: auth.Credential{
		Username: o.Username, Password: o.Password, RefreshToken: o.IdentityToken,
	}}
	if chain.given != auth.EmptyCredential {
		return chain, nil
	}
	for _, file := range o.ConfigFiles {
		config, err := readDockerConfig(file)
		switch {
		case err != nil && mirrors:
			chain.deferred = err
			continue
		case err != nil:
			return nil, err
		}
		chain.configs = append(chain.configs, config)
	}
	if o.DockerConfigDir != "" {
		config, err := readDockerConfig(o.DockerConfigDir)
		switch {
		case err == nil:
			chain.configs = append(chain.configs, config)
		case !errors.Is(err, fs.ErrNotExist):
			chain.deferred = err
		}
	}
	return chain, nil
}

// find returns the credential for a repository, empty when nothing knows the
// registry.
func (c *credentialChain) find(ctx context.Context, registry, repository string) (auth.Credential, error) {
	return c.findFor(ctx, registry, repository, false)
}

// findFor is find; over plain HTTP it finds only what is meant to be sent so. A name without a
// port is that of a registry with TLS, whose password would go out in the clear.
func (c *credentialChain) findFor(ctx context.Context, registry, repository string, plain bool) (auth.Credential, error) {
	if c.given != auth.EmptyCredential {
		return c.given, nil
	}
	for _, config := range c.configs {
		cred, err := config.find(ctx, registry, repository, plain)
		if err != nil || cred != auth.EmptyCredential {
			return cred, err
		}
	}
	for _, config := range c.configs {
		if c.exact {
			break
		}
		cred, err := config.byPattern(registry, repository)
		if err != nil || cred != auth.EmptyCredential {
			return cred, err
		}
	}
	return auth.EmptyCredential, c.deferred
}

// readDockerConfig reads a file, or the one in a folder. Errors are *ConfigError
// and never quote the content: it holds secrets.
func readDockerConfig(path string) (*dockerConfig, error) {
	fail := func(err error) (*dockerConfig, error) {
		return nil, &ConfigError{Option: "registry credentials", Path: path, Err: cause(err)}
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		folder := path
		path = filepath.Join(folder, "config.json")
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			// The name of the key in a Kubernetes pull secret.
			path = filepath.Join(folder, ".dockerconfigjson")
		}
	}
	f, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return fail(err)
	}
	if len(raw) > maxConfig {
		return fail(fmt.Errorf("it is larger than %d bytes", maxConfig))
	}
	config := &dockerConfig{path: path}
	if len(strings.TrimSpace(string(raw))) == 0 {
		return config, nil
	}
	if err := json.Unmarshal(raw, config); err != nil {
		return fail(errors.New("it is not JSON as docker writes its config.json"))
	}
	return config, nil
}

func (d *dockerConfig) find(ctx context.Context, registry, repository string, plain bool) (auth.Credential, error) {
	key := credentials.ServerAddressFromRegistry(apiHost(registry))
	for _, suffix := range []string{d.CredHelpers[key], d.CredHelpers[registry], d.CredsStore} {
		if suffix == "" || plain && !isPlain(key, registry) {
			continue
		}
		cred, err := askHelper(ctx, suffix, key)
		if err != nil {
			return auth.EmptyCredential, &ConfigError{Option: "credential helper docker-credential-" + suffix, Err: scrub(err)}
		}
		if cred != auth.EmptyCredential {
			return cred, nil
		}
	}
	entry, ok := d.entry(registry, repository, plain)
	if !ok {
		return auth.EmptyCredential, nil
	}
	return d.credential(registry, entry)
}

// byPattern is find for what only a pattern names.
func (d *dockerConfig) byPattern(registry, repository string) (auth.Credential, error) {
	byName, host := d.byName(registry, false), serverOf(registry)
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(byName))) {
		if matchesServer(name, host, repository) {
			return d.credential(registry, byName[name])
		}
	}
	return auth.EmptyCredential, nil
}

func (d *dockerConfig) credential(registry string, entry dockerAuth) (auth.Credential, error) {
	cred, err := entry.credential()
	if err != nil {
		return auth.EmptyCredential, &ConfigError{Option: "registry credentials", Path: d.path, Err: fmt.Errorf("entry for %s: %w", registry, err)}
	}
	return cred, nil
}

// askHelper runs docker-credential-SUFFIX get.
func askHelper(ctx context.Context, suffix, key string) (auth.Credential, error) {
	// A suffix is part of a program's name, never a path to another one.
	if strings.ContainsAny(suffix, `/\`) {
		return auth.EmptyCredential, errors.New("its name holds a path")
	}
	return credentials.NewNativeStore(suffix).Get(ctx, key)
}

// entry finds the most specific entry: kubelet lets a pull secret name
// host/path, so that two teams' tokens for one registry can lie side by side.
func (d *dockerConfig) entry(registry, repository string, plain bool) (dockerAuth, bool) {
	byName, host := d.byName(registry, plain), serverOf(registry)
	for below := repository; below != ""; {
		if entry, ok := byName[host+"/"+below]; ok {
			return entry, true
		}
		i := strings.LastIndexByte(below, '/')
		below = below[:max(i, 0)]
	}
	entry, ok := byName[host]
	return entry, ok
}

func serverOf(registry string) string {
	return normalizeServer(credentials.ServerAddressFromRegistry(apiHost(registry)))
}

// byName has the entries by what their keys mean: over plain HTTP those that may be meant for
// registry so.
func (d *dockerConfig) byName(registry string, plain bool) map[string]dockerAuth {
	all := make(map[string]dockerAuth, len(d.Auths))
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(d.Auths)), func(key string) bool { return plain && !isPlain(key, registry) })
	for _, key := range keys {
		name := normalizeServer(key)
		// An older form of the key, such as https://HOST/v1/, gives way to what a
		// login writes today; without order either would win by chance.
		if _, taken := all[name]; !taken || key == name {
			all[name] = d.Auths[key]
		}
	}
	for _, key := range keys {
		// What docker itself writes for Docker Hub counts before podman's docker.io.
		if name := hubName(normalizeServer(key)); name != "" {
			if _, taken := all[name]; !taken {
				all[name] = d.Auths[key]
			}
		}
	}
	return all
}

// hubName is the name with docker's own host in the place of Docker Hub's others, "" for
// another registry's.
func hubName(name string) string {
	host, below, found := strings.Cut(name, "/")
	if host != "docker.io" && host != "registry-1.docker.io" {
		return ""
	}
	if !found {
		return "index.docker.io"
	}
	return "index.docker.io/" + below
}

// matchesServer reports whether a key with a pattern, such as *.azurecr.io/team, means a
// repository, as kubelet has it: a pattern is of one label, the port is the same, and a
// path is a beginning.
func matchesServer(key, host, repository string) bool {
	pattern, below, _ := strings.Cut(key, "/")
	if !strings.ContainsAny(pattern, "*?[") {
		return false
	}
	if below != "" && repository != below && !strings.HasPrefix(repository, below+"/") {
		return false
	}
	patternName, patternPort, _ := strings.Cut(pattern, ":")
	name, port, _ := strings.Cut(host, ":")
	labels, patterns := strings.Split(name, "."), strings.Split(patternName, ".")
	if patternPort != port || len(labels) != len(patterns) {
		return false
	}
	for i, label := range labels {
		if ok, err := path.Match(patterns[i], label); err != nil || !ok {
			return false
		}
	}
	return true
}

// isPlain reports that a key of the configuration, which names registry, may be meant for plain
// HTTP: it says so, or names a port that is not the one by default.
func isPlain(key, registry string) bool {
	if strings.HasPrefix(key, "http://") {
		return true
	}
	u := url.URL{Host: registry}
	return !strings.HasPrefix(key, "https://") && u.Port() != "" && u.Port() != "80"
}

// normalizeServer drops the scheme and the API version that older files have in
// their keys: https://index.docker.io/v1/ is index.docker.io.
func normalizeServer(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key = strings.TrimSuffix(key, "/")
	key = strings.TrimSuffix(strings.TrimSuffix(key, "/v1"), "/v2")
	host, below, _ := strings.Cut(key, "/")
	if below == "" {
		return strings.ToLower(host)
	}
	return strings.ToLower(host) + "/" + below
}

var errAuthForm = errors.New("its auth field is not the base64 of user:password")

func (a dockerAuth) credential() (auth.Credential, error) {
	cred := auth.Credential{
		Username: a.Username, Password: a.Password,
		RefreshToken: a.IdentityToken, AccessToken: a.RegistryToken,
	}
	if a.Auth == "" {
		return cred, nil
	}
	decoded, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return auth.EmptyCredential, errAuthForm
	}
	user, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return auth.EmptyCredential, errAuthForm
	}
	cred.Username, cred.Password = user, strings.TrimRight(password, "\x00")
	return cred, nil
}
