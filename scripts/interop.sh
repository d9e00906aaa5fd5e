#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Holds aegis-oci against cosign, notation, oras and modctl, as programs, on two real
# registries, OpenBao and HashiCorp Vault, and prints who verifies whom. Builds what
# is missing first: from an empty build cache that takes about twenty minutes, the
# half of it for Vault, afterwards a few seconds.
#
# The tests take about three minutes, and the concurrent signers more:
#
#   AEGIS_STRESS_ROUNDS   rounds of eight signers at once, 100 if it is not set
#
# usage: interop.sh [flags of go test]
set -eu

cd "$(dirname "$0")/.."
root=$(pwd)

CGO_ENABLED=0 go build -trimpath -o bin/aegis-oci ./cmd/aegis-oci
CGO_ENABLED=0 go build -trimpath -o bin/notation-aegis ./cmd/notation-aegis
test/tools/build.sh oras cosign cosign2 notation modctl
for server in stack:aegis-stack distribution:registry; do
	# The same flags as make stack: one build of OpenBao serves all.
	(cd "test/${server%%:*}" && GOWORK=off go build -o "$root/bin/${server##*:}" .)
done

AEGIS_STRESS_ROUNDS=${AEGIS_STRESS_ROUNDS:-100}
export AEGIS_STRESS_ROUNDS
cd test/interop
exec env GOWORK=off go test -count=1 -timeout 30m -v "$@" .
