// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package acceptance runs what an operator does, with what an operator has:
// HashiCorp Vault itself and its own command line, an OpenID Connect issuer, the
// shipped scripts and workflow. The tests are behind the build tag acceptance,
// since building Vault takes minutes: make acceptance runs them.
package acceptance
