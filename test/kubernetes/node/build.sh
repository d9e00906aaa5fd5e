#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds a Kubernetes node into bin/node: Kubernetes' programs in one (kube),
# containerd and its shim, each from a module of its own that pins it. From an
# empty build cache that takes about five minutes on two cores, afterwards
# seconds. Of Debian it needs etcd-server, runc, buildah, busybox-static, openssl
# and ca-certificates; as root it installs what is missing.
#
# usage: build.sh
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=$root/bin/node
mkdir -p "$out"
export GOWORK=off

missing=
for part in etcd:etcd-server runc:runc buildah:buildah openssl:openssl busybox:busybox-static \
	/etc/ssl/certs/ca-certificates.crt:ca-certificates; do
	command -v "${part%%:*}" >/dev/null 2>&1 || [ -e "${part%%:*}" ] || missing="$missing ${part##*:}"
done
if [ -n "$missing" ]; then
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "build.sh: please install:$missing" >&2
		exit 1
	fi
	echo "installing$missing" >&2
	# A started service would be in the way of the node's own.
	export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
	# shellcheck disable=SC2086 # one word for each package
	apt-get install -y -qq --no-install-recommends $missing >&2 || {
		apt-get update -qq
		# shellcheck disable=SC2086
		apt-get install -y -qq --no-install-recommends $missing >&2
	}
fi

# build NAME DIR PACKAGE LDFLAGS
build() {
	[ -x "$out/$1" ] || echo "building $1 (minutes from an empty cache)" >&2
	nice go -C "$here/$2" build -buildvcs=false -tags no_btrfs,no_devmapper,no_zfs,no_aufs \
		-ldflags "-s -w $4" -o "$out/$1" "$3"
}
version() { go -C "$here/$1" list -m -f '{{.Version}}' "$2"; }

# Unset, Kubernetes' version is v0.0.0-master, which the API server refuses to serve.
kubernetes=$(version kubernetes k8s.io/kubernetes)
minor=${kubernetes#v1.}
in=k8s.io/component-base/version
build kube kubernetes . "-X $in.gitVersion=$kubernetes -X $in.gitMajor=1 -X $in.gitMinor=${minor%%.*} -X $in.gitTreeState=clean"
for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do
	ln -sfn kube "$out/$name"
done

in=github.com/containerd/containerd/v2
containerd=$(version containerd $in)
export CGO_ENABLED=0
for name in containerd containerd-shim-runc-v2 ctr; do
	build $name containerd $in/cmd/$name "-X $in/version.Version=$containerd"
done
