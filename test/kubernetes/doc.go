// Copyright The aegis-oci Authors
// SPDX-License-Identifier: Apache-2.0

// Package kubernetes runs the shipped manifests as real pods on a real node: API
// server, kubelet, containerd and runc on loopback, with HashiCorp Vault reviewing
// the pods' tokens through that API server. The tests are behind the build tag
// acceptance, since building the node takes minutes: make kubernetes runs them, as
// root. Every pod is in the host's network, for the servers are on loopback; nothing
// else of the manifests is changed but images, addresses and names.
package kubernetes
