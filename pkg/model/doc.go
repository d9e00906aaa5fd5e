// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package model turns a directory into a CNCF ModelPack manifest and a verified
// manifest back into a directory.
//
// [Pack] reads files and answers with the exact bytes of a manifest, and with
// the blobs that it names. The same files give the same bytes whoever packs
// them, when and where: no time, owner or order of arguments enters. One file is
// one raw layer, so that a reader can fetch, check and skip files by themselves.
//
// [Unpack] takes a [verify.Verified], which only evidence can make, and gives a
// file its final name after every byte of the model was checked.
//
// Both sides hold every path to the same rule, so that what one packs the other
// extracts, on any system.
package model
