#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Measures aegis-oci beside cosign, notation, oras and modctl and prints tables, the
# last of which has every case with its aim. Builds what is missing first, as
# interop.sh does. It takes about a quarter of an hour and 8 GiB of free memory, for
# its data is on a tmpfs; docs/benchmarks.md says more.
#
# With -only vault it measures logging in to HashiCorp Vault instead, which is
# built first.
#
# usage: bench.sh [-full] [-only CASE,...] [-tmp DIR] [-disk DIR]    bench.sh -h lists the cases
#        bench.sh -only vault
set -eu

cd "$(dirname "$0")/.."
root=$(pwd)

if [ "$*" = "-only vault" ]; then
	exec go test -tags acceptance -count=1 -run '^TestFigures$' -v ./test/acceptance
fi

CGO_ENABLED=0 go build -trimpath -o bin/aegis-oci ./cmd/aegis-oci
CGO_ENABLED=0 go build -trimpath -o bin/notation-aegis ./cmd/notation-aegis
test/tools/build.sh oras cosign notation modctl
for program in stack:aegis-stack distribution:registry bench:bench; do
	# The same flags as make stack: one build of OpenBao serves all.
	(cd "test/${program%%:*}" && GOWORK=off go build -o "$root/bin/${program##*:}" .)
done

exec bin/bench -bin bin -tree . "$@"
