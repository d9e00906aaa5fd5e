# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0

MODEL ?= examples/models/silero-vad
FUZZTIME ?= 2m
PROGRAMS = ./cmd/...
SHELL = /bin/sh

.PHONY: help build stack vault demo test interop acceptance kubernetes bench fuzz lint clean

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

build: ## build the programs into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -o bin/ $(PROGRAMS)

# The same flags as the tests use (internal/servertest), so that one build of
# OpenBao, which takes minutes, serves both.
stack: ## build the servers for tests and the demo into bin/
	@mkdir -p bin
	@[ -x bin/aegis-stack ] || echo 'Building OpenBao and a registry: about 4 minutes on 2 cores the first time, seconds later.'
	GOWORK=off go -C test/stack build -o ../../bin/aegis-stack .

# HashiCorp's own Vault (BUSL-1.1): the tests' server and CLI, never shipped. The
# recipe is that of internal/servertest.
vault: ## build HashiCorp's vault for the acceptance tests into bin/
	@mkdir -p bin
	@[ -x bin/vault ] || echo 'Building HashiCorp Vault: 5 to 10 minutes on 2 cores the first time, seconds later.'
	GOWORK=off CGO_ENABLED=0 go -C test/vault build -ldflags=-s -o ../../bin/vault .

demo: ## run the main job on real servers; MODEL=DIR takes your own model
	@[ -x bin/aegis-stack ] || echo 'The first demo compiles a real OpenBao core: about 4 minutes on 2 cores. The next ones take seconds.'
	@$(MAKE) --no-print-directory build stack >/dev/null
	@go run ./test/demo -model '$(MODEL)'

# The packages that take longest first, so that none is left to run alone. Not more
# of them at once than go takes by itself: tests that count bytes or time feel it.
test: stack ## run the tests against real servers
	go test -race -shuffle=on -timeout 20m ./pkg/aegis ./cmd/aegis-oci ./...
	go test ./pkg/internal/buffer ./pkg/transfer # the race detector has all buffers in the heap
	GOWORK=off go -C test/wycheproof test -shuffle=on ./...

interop: stack vault ## hold aegis-oci against cosign, notation, oras and modctl
	scripts/interop.sh

acceptance: stack vault ## run the operator's scenarios and print the acceptance table
	test/acceptance/run.sh

kubernetes: stack vault ## run the manifests as pods on a real Kubernetes node; needs root
	test/kubernetes/node/build.sh
	go test -tags acceptance -count=1 -parallel 4 -timeout 20m -v ./test/kubernetes

bench: stack ## measure beside oras, modctl and cosign; BENCH=pull,push picks, FULL=1 takes 50 minutes
	scripts/bench.sh $(if $(BENCH),-only $(BENCH)) $(if $(FULL),-full)

fuzz: ## run every fuzz target for FUZZTIME
	scripts/fuzz.sh $(FUZZTIME)

lint: ## gofmt, vet, staticcheck
	@test -z "$$(git ls-files '*.go' | xargs gofmt -l)" || { git ls-files '*.go' | xargs gofmt -l; exit 1; }
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

clean: ## remove bin/
	rm -rf bin
