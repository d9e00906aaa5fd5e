// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package vault signs and verifies with keys that Vault or OpenBao Transit
// holds. It is the only importer of hashicorp/vault/api.
//
// Open makes a Session from explicit settings and a TokenSource. A Session gives
// Signers and Keys, which implement signature.Signer and signature.Key. Both
// work with the smallest policy there is: `update` on MOUNT/sign/NAME for a
// Signer, `update` on MOUNT/verify/NAME for a Key. With `read` on
// MOUNT/keys/NAME they do more: the version is pinned before signing, the type
// is checked early, and an unhinted signature is tried under every version that
// exists.
//
// A Vault that verifies is a root of trust, so neither a token nor an answer
// crosses a network without authenticated TLS unless Config.InsecureVault says
// so, and no redirect leaves the server that was named.
//
// The package reads no VAULT_* variable on its own. The one thing it cannot
// prevent is that vault/api refuses to make a client while such a variable is
// malformed; that comes back as an Error of kind BadConfig.
package vault
