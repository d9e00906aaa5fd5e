// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package layout reads and writes OCI image layouts (image-spec 1.1, "OCI Image
// Layout Specification"): a directory, or a tar file of one.
//
// A layout comes from somebody else, on a stick or through a gate. Nothing in it is
// believed without a check: its index is bounded and only names candidates,
// manifests and small blobs are hashed before they are handed out, files are reached
// through os.Root and never through a link, and a tar's members are counted, and
// addressed where they lie. What is written appears under its final name when its
// digest is right, and a layout's index is replaced under a lock.
//
// A tar is written once and then only read. Errors are *Error with a Kind, or
// *ReferenceError.
package layout
