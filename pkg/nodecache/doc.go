// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package nodecache keeps blobs by their digest in a directory that the pulls of a
// node share, so that of several at once one downloads. It decides nothing: what
// it hands out is hashed by whoever takes it, as if it came from the network, and
// neither tags nor judgements are kept.
//
// The directory has blobs/sha256/HEX, whole blobs; partial/HEX.UID, what is being
// fetched; and locks/HEX. A blob's lock is held exclusively to fill or to remove
// it, and shared while it is copied out. What was last used is what the lock file
// was last written.
//
// Users of different ids may share it when it is writable to them and sticky, as
// /tmp is: each writes files of its own and reads those of the others.
package nodecache
