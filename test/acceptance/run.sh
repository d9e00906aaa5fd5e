#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs the operator's scenarios and the pods on a Kubernetes node, then prints the
# acceptance table with what both have shown. Fails if a test fails or a line of
# the table is not shown. The node needs root: without it the pods' lines are not
# shown.
#
# usage: run.sh
set -u

cd "$(dirname "$0")/../.." || exit 1
AEGIS_EVIDENCE=$(mktemp) || exit 1
export AEGIS_EVIDENCE
trap 'rm -f "$AEGIS_EVIDENCE"' EXIT
trap 'exit 1' INT TERM
code=0

go test -tags acceptance -count=1 -timeout 30m -v ./test/acceptance/... || code=1
if [ "$(id -u)" != 0 ]; then
	echo 'run.sh: the Kubernetes node needs root: its tests are not run' >&2
	code=1
else
	{ test/kubernetes/node/build.sh &&
		go test -tags acceptance -count=1 -parallel 4 -timeout 20m -v ./test/kubernetes; } || code=1
fi
go run ./test/acceptance/table "$AEGIS_EVIDENCE" || code=1
exit "$code"
