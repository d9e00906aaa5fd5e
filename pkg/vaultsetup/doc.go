// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package vaultsetup says what a Vault needs so that one kind of client can sign
// and verify with one Transit key, and nothing else: the key, a policy, an auth
// mount and a role. It prints that as shell commands, a policy or Terraform, and
// compares it with what a Vault has, or with a token that a client would send.
//
// It talks to nobody: what a Vault has comes through a Reader.
package vaultsetup
