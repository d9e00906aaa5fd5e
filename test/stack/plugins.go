// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"maps"
	"slices"

	"github.com/openbao/openbao/audit"
	auditfile "github.com/openbao/openbao/builtin/audit/file"
	"github.com/openbao/openbao/builtin/credential/approle"
	"github.com/openbao/openbao/builtin/credential/cert"
	jwtauth "github.com/openbao/openbao/builtin/credential/jwt"
	kubeauth "github.com/openbao/openbao/builtin/credential/kubernetes"
	"github.com/openbao/openbao/builtin/logical/kv"
	"github.com/openbao/openbao/builtin/logical/transit"
	"github.com/openbao/openbao/sdk/v2/helper/consts"
	"github.com/openbao/openbao/sdk/v2/logical"
)

func secretsEngines() map[string]logical.Factory {
	return map[string]logical.Factory{"kv": kv.Factory, "transit": transit.Factory}
}

func authMethods() map[string]logical.Factory {
	return map[string]logical.Factory{
		"approle":    approle.Factory,
		"cert":       cert.Factory,
		"jwt":        jwtauth.Factory,
		"kubernetes": kubeauth.Factory,
		"oidc":       jwtauth.Factory,
	}
}

func auditDevices() map[string]audit.Factory {
	return map[string]audit.Factory{"file": auditfile.Factory}
}

// catalog tells the core which plugins are compiled in. OpenBao's own registry
// would pull every database driver and cloud client into the binary; a nil one
// makes the core panic at the first mount.
type catalog struct {
	auth, secrets map[string]logical.Factory
}

func (c catalog) byType(t consts.PluginType) map[string]logical.Factory {
	switch t {
	case consts.PluginTypeCredential:
		return c.auth
	case consts.PluginTypeSecrets:
		return c.secrets
	default:
		return nil
	}
}

// Contains reports whether the plugin is compiled in.
func (c catalog) Contains(name string, t consts.PluginType) bool {
	_, ok := c.byType(t)[name]
	return ok
}

// Get returns the plugin's factory, in the untyped form that the core asserts.
func (c catalog) Get(name string, t consts.PluginType) (func() (any, error), bool) {
	factory, ok := c.byType(t)[name]
	if !ok {
		return nil, false
	}
	return func() (any, error) {
		return func(ctx context.Context, conf *logical.BackendConfig) (logical.Backend, error) {
			return factory(ctx, conf)
		}, nil
	}, true
}

// Keys lists the plugins of one type.
func (c catalog) Keys(t consts.PluginType) []string {
	return slices.Sorted(maps.Keys(c.byType(t)))
}

// DeprecationStatus says that every plugin here is supported.
func (c catalog) DeprecationStatus(name string, t consts.PluginType) (consts.DeprecationStatus, bool) {
	if !c.Contains(name, t) {
		return consts.Unknown, false
	}
	return consts.Supported, true
}
