#!/bin/sh
# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# Runs every fuzz target in turn, each for the time given (default 30s). A crash
# ends it, and leaves the input under the package's testdata/fuzz.
#
# usage: fuzz.sh [TIME]
set -eu

cd "$(dirname "$0")/.."
time=${1:-30s}

git ls-files -co --exclude-standard '*_test.go' | xargs grep -H '^func Fuzz' | sort |
	sed 's/^\(.*\)\/[^/]*:func \(Fuzz[A-Za-z0-9_]*\)(.*$/\1 \2/' |
	while read -r dir target; do
		echo "--- $dir $target"
		go test "./$dir" -run='^$' -fuzz="^$target\$" -fuzztime="$time" -fuzzminimizetime=5s </dev/null
	done
