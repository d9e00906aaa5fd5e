// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package verify is the only place that decides whether a manifest is accepted.
//
// Verifier.Verify takes a Subject (the hash of bytes already fetched, never a
// tag), looks at the signatures that a Source offers and returns a Verified, or
// one of three refusals that callers must keep apart:
//
//   - *NoSignatureError: nothing attached is a signature;
//   - *RejectedError: signatures were judged and none counts;
//   - *UndecidedError: something needed for the judgement could not be had, or
//     there was more to look at than the caps allow.
//
// No level, mode or flag makes a Verified without evidence. What a listing says
// about a referrer (artifact type, annotations) orders the work and decides
// nothing: whoever may push can copy it.
package verify
