// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package aegis joins the other packages into what the command line and a model
// loader call: Push, Sign, Verify, Pull, VerifyDir, Inspect and Tag.
//
// A loader that must not open an unsigned model calls Pull, or VerifyDir for a
// model that is already on disk, and gets the typed refusals of package verify
// (*verify.NoSignatureError, *verify.RejectedError, *verify.UndecidedError) and
// of package model (*model.ContentError, *model.DirError). A nil error is the
// only acceptance.
//
// The result structs are the JSON that the command line prints; their field
// names are stable.
package aegis
