// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aegis-oci/aegis-oci/pkg/aegis"
	"github.com/aegis-oci/aegis-oci/pkg/layout"
	"github.com/aegis-oci/aegis-oci/pkg/registry"
	"github.com/aegis-oci/aegis-oci/pkg/vault"
)

func fromVault(err error, o *outcome) bool {
	var none *noTokenError
	if errors.As(err, &none) {
		return o.set(exitUndecided, "vault_no_token", noTokenHint)
	}
	var e *vault.Error
	if !errors.As(err, &e) {
		return false
	}
	o.retryable = e.Retryable()
	code, hint := vaultCode(e)
	if e.Hint != "" {
		hint = e.Hint
	}
	exit := exitUndecided
	if e.Kind == vault.BadConfig || e.Kind == vault.Insecure {
		exit = exitUsage
	}
	return o.set(exit, code, hint)
}

func vaultCode(e *vault.Error) (code, hint string) {
	switch e.Kind {
	case vault.Unreachable:
		return "vault_unreachable", "is $VAULT_ADDR right, and Vault up?"
	case vault.TLS:
		return "vault_tls", "--vault-cacert FILE"
	case vault.Sealed:
		return "vault_sealed", "vault operator unseal"
	case vault.Standby:
		return "vault_standby", "point VAULT_ADDR at the active node or the load balancer"
	case vault.Uninitialized:
		return "vault_uninitialized", "vault operator init"
	case vault.Denied:
		return "vault_denied", fmt.Sprintf("add to the token's policy: path %q { capabilities = [%q] }", e.Path, first(e.Capability, "update"))
	case vault.TokenInvalid:
		return "vault_token_invalid", "get a new token"
	case vault.NoToken:
		return "vault_no_token", noTokenHint
	case vault.KeyNotFound:
		return "vault_key_not_found", ""
	case vault.KeyUnsuitable:
		return "vault_key_unsuitable", ""
	case vault.RateLimited:
		return "vault_rate_limited", ""
	case vault.Insecure:
		return "vault_insecure", "use https, or --insecure-vault on a network that you trust"
	case vault.LongLived:
		return "vault_token_long_lived", "use a token that lives at most --max-token-ttl"
	case vault.BadRequest:
		return "vault_bad_request", ""
	case vault.BadConfig:
		return "usage", ""
	case vault.LoginRefused:
		return "vault_login_refused", "compare the role with what the login has sent"
	case vault.NoIdentity:
		return "vault_no_identity", "is the identity token where it is looked for?"
	case vault.WrappingUsed:
		return "vault_wrapping_token_used", ""
	case vault.WrappingForeign:
		return "vault_wrapping_token_foreign", ""
	case vault.OutcomeUnknown:
		return "vault_outcome_unknown", "get a new secret_id; this one may be used up"
	case vault.Malformed:
		return "vault_malformed", "does VAULT_ADDR name a Vault?"
	}
	return "vault_unavailable", ""
}

func fromRegistry(err error, o *outcome) bool {
	var fallback *registry.FallbackError
	if errors.As(err, &fallback) {
		hint := "somebody wrote another manifest under the tag " + fallback.Tag
		if fallback.Itself {
			hint = "this registry, as GitLab's, cannot list referrers: sign with --signature-format cosign-tag, copy with --no-referrers"
		}
		return o.set(exitUndecided, "referrers_tag_invalid", hint)
	}
	var e *registry.Error
	if !errors.As(err, &e) {
		return false
	}
	o.retryable = e.Retryable()
	code, hint := registryCode(e)
	exit := exitUndecided
	if e.Kind == registry.Corrupt {
		exit = exitRejected
	}
	return o.set(exit, code, hint)
}

func registryCode(e *registry.Error) (code, hint string) {
	if e.Code == "PROJECTPOLICYVIOLATION" {
		// Harbor's, which counts signatures in cosign's classic form alone.
		return "registry_policy", "where Harbor wants signatures by Cosign: push --sign --signature-format sigstore,cosign-tag"
	}
	const proxyHint = "HTTPS_PROXY names the proxy, with the user that it wants, and NO_PROXY the hosts that need none"
	switch e.Kind {
	case registry.NotFound:
		return "registry_not_found", "check repository and tag; some registries answer so without credentials too"
	case registry.Unauthorized:
		host, _, _ := strings.Cut(e.Reference, "/")
		return "registry_unauthorized", "aegis-oci login -u USER --password-stdin " + host + ", or --registry-config FILE"
	case registry.Denied:
		return "registry_denied", "the credentials do not allow this on the repository"
	case registry.RateLimited:
		return "registry_rate_limited", "log in, or raise --retry-timeout"
	case registry.Unavailable:
		return "registry_unavailable", ""
	case registry.ProxyRefused:
		return "proxy_refused", proxyHint
	case registry.Unreachable:
		var proxy *registry.ProxyError
		if errors.As(e, &proxy) {
			return "registry_unreachable", proxyHint
		}
		return "registry_unreachable", "is the registry up, and its name right?"
	case registry.TLS:
		return "registry_tls", "--ca-file FILE with the registry's certificate authority"
	case registry.PlainHTTP:
		return "registry_plain_http", "--plain-http is for registries without TLS; one on loopback that has it needs --ca-file FILE"
	case registry.Corrupt:
		return "content_differs", "the registry or a proxy changed the content: push it again"
	case registry.TooLarge:
		return "registry_too_large", ""
	case registry.NotListed:
		return "registry_not_listed", "run the same command again: signing is safe to repeat"
	case registry.Refused:
		return "registry_refused", ""
	}
	return "registry_protocol", "is this an OCI registry?"
}

func fromLayout(err error, o *outcome) bool {
	var many *aegis.TooManyError
	if errors.As(err, &many) {
		return o.set(exitUndecided, "layout_too_large", "--no-referrers copies without what is attached")
	}
	var e *layout.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Kind {
	case layout.NotFound:
		return o.set(exitUndecided, "layout_not_found", "a layout is a directory with oci-layout, index.json and blobs, or a tar of one")
	case layout.Corrupt:
		return o.set(exitRejected, "content_differs", "somebody or the medium changed the layout: copy it again")
	case layout.TooLarge:
		return o.set(exitUndecided, "layout_too_large", "--no-referrers copies without what is attached")
	case layout.ReadOnly:
		return o.set(exitUsage, "layout_read_only", "")
	case layout.NotEmpty:
		return o.set(exitUsage, "destination_not_empty", "choose an empty or a new directory")
	}
	return o.set(exitUndecided, "layout_invalid", "a layout is a directory with oci-layout, index.json and blobs, or a tar of one")
}
