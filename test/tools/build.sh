#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs that aegis-oci is held against into bin/tools/, each from
# a module of its own that pins it: their dependency trees do not agree with one
# another, and none of them may reach the product's go.mod.
#
# usage: build.sh [NAME...]    names are directories here; default: oras cosign
#
# A program that is there at the pinned version is left alone: Go writes the
# version into the program itself.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$here/../.." && pwd)/bin/tools
mkdir -p "$out"
[ $# -gt 0 ] || set -- oras cosign

for name; do
	cd "$here/$name"
	# "tool IMPORT/PATH" and "MODULE VERSION" of the module that holds it.
	path=$(sed -n 's/^tool //p' go.mod)
	pinned=$(GOWORK=off go list -f '{{.Module.Path}} {{.Module.Version}}' "$path")
	built=$(go version -m "$out/$name" 2>/dev/null | awk '$1 == "mod" { print $2, $3 }') || built=
	if [ "$pinned" = "$built" ]; then
		continue
	fi
	echo "building $pinned (cosign takes a few minutes from an empty cache)" >&2
	GOWORK=off CGO_ENABLED=0 nice go build -trimpath -p "${TOOLS_PARALLEL:-2}" -o "$out/$name.new" "$path"
	mv "$out/$name.new" "$out/$name"
done
