// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// Ping checks the client's credentials against the registry's API root. A
// registry that asks nobody accepts everything.
func (c *Client) Ping(ctx context.Context, registry string) error {
	ref, err := ParseReference(registry + "/ping")
	if err != nil {
		return &ReferenceError{Input: clip(registry, 200), Reason: "it must be HOST[:PORT]"}
	}
	r, err := c.Repository(ref)
	if err != nil {
		return err
	}
	_, err = r.do(ctx, call{
		op: "log in", about: ref.Registry, method: http.MethodGet, url: r.path("/v2/"),
		accept: []int{http.StatusOK}, noScope: true,
	})
	return err
}

// Saved says where a credential went.
type Saved struct {
	// Where is the configuration file, or the credential helper's program.
	Where string
	// PlainText warns that the file holds the secret in the clear (base64).
	PlainText bool
}

// SaveCredential stores a credential for a registry as docker login does: with
// the helper that configFile names, if any, else in configFile itself (mode
// 0600). Everything else in the file is kept.
func SaveCredential(ctx context.Context, configFile, registry string, cred Credential) (Saved, error) {
	store, saved, err := openStore(configFile, registry)
	if err != nil {
		return Saved{}, err
	}
	err = store.Put(ctx, serverKey(registry), auth.Credential{
		Username: cred.Username, Password: cred.Password, RefreshToken: cred.IdentityToken,
	})
	if err != nil {
		return Saved{}, &ConfigError{Option: "save credentials in", Path: saved.Where, Err: scrub(err)}
	}
	return saved, nil
}

// RemoveCredential removes what configFile, or its helper, holds for a registry.
// Nothing there is no error.
func RemoveCredential(ctx context.Context, configFile, registry string) (Saved, error) {
	store, saved, err := openStore(configFile, registry)
	if err != nil {
		return Saved{}, err
	}
	keys := []string{serverKey(registry)}
	if saved.PlainText {
		config, err := readDockerConfig(configFile)
		if err != nil {
			return Saved{}, err
		}
		for key := range config.Auths {
			// Older keys, such as https://HOST/v1/, would still log in.
			if normalizeServer(key) == normalizeServer(serverKey(registry)) {
				keys = append(keys, key)
			}
		}
	}
	for _, key := range keys {
		if err := store.Delete(ctx, key); err != nil && !isNotStored(err) {
			return Saved{}, &ConfigError{Option: "remove credentials from", Path: saved.Where, Err: scrub(err)}
		}
	}
	return saved, nil
}

// isNotStored knows the answer of docker's helpers for an unknown server.
func isNotStored(err error) bool {
	return strings.Contains(err.Error(), "credentials not found")
}

func serverKey(registry string) string {
	return credentials.ServerAddressFromRegistry(strings.ToLower(registry))
}

// openStore opens configFile for writing; a missing one is made with its folder.
func openStore(configFile, registry string) (credentials.Store, Saved, error) {
	if reason := checkHost(strings.ToLower(registry)); reason != "" {
		return nil, Saved{}, &ReferenceError{Input: clip(registry, 200), Reason: reason}
	}
	// oras-go replaces the file by a rename: follow a link first, so that the
	// file a link points to is changed and not the link.
	if target, err := filepath.EvalSymlinks(configFile); err == nil {
		configFile = target
	}
	config, err := readDockerConfig(configFile)
	switch {
	case errors.Is(err, os.ErrNotExist):
		config = &dockerConfig{path: configFile}
	case err != nil:
		return nil, Saved{}, err
	}
	store, err := credentials.NewStore(config.path, credentials.StoreOptions{AllowPlaintextPut: true})
	if err != nil {
		return nil, Saved{}, &ConfigError{Option: "registry credentials", Path: configFile, Err: errors.New("it cannot be read")}
	}
	saved := Saved{Where: config.path, PlainText: true}
	for _, suffix := range []string{config.CredHelpers[serverKey(registry)], config.CredsStore} {
		if suffix != "" {
			return store, Saved{Where: fmt.Sprintf("docker-credential-%s", suffix)}, nil
		}
	}
	return store, saved, nil
}
