// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package registry speaks to OCI registries (distribution spec 1.1): references,
// credentials, TLS, resolving a reference once into a Pinned manifest, uploads,
// ranged downloads, and referrers, whether the registry has the referrers API or
// only the tag schema.
//
// Nothing that a registry says is believed without a check: manifests and blobs
// are hashed here, sizes are bounded, redirects and upload locations on another
// host get no credentials, and lists of referrers are only lists of candidates.
// Errors are *Error with a Kind; a malformed reference is *ReferenceError, an
// unusable option or credential file *ConfigError, and a file that changed under
// an upload *ChangedError.
//
// Requests, challenges and tokens go through oras-go's auth.Client; retries,
// uploads and the referrers fallback are this package's own.
package registry
