# trunktap. `make` alone lists the targets.

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

FUZZTIME ?= 20s
SOAKTIME ?= 10m
KILLS ?= 1000
SPOOFED  ?= 1000000
MODEL_SEQUENCES ?= 10000000
ANY_CALLS ?= 10000
BENCH    ?=
PKG      ?= ./...
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X main.version=$(VERSION)
TOOL     := go tool -modfile=.tools.mod

# with NAME-PATTERN: the packages that have a test function of that name.
with = $$(git grep -lE '^func $(1)' -- '*_test.go' | xargs -r -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## install the Debian packages that are missing
	@.ci/deps.sh build demo test

.PHONY: build
build: ## build bin/trunktap
	@.ci/deps.sh build
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trunktap ./cmd/trunktap

.PHONY: test
test: ## vet, and run all tests
	@.ci/deps.sh build demo test
	go vet ./...
	go test -count=1 -timeout 25m $(PKG)

.PHONY: race
race: ## run all tests under the race detector
	@.ci/deps.sh build demo test
	go test -race -count=1 -timeout 60m $(PKG)

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (20s)
	@.ci/deps.sh build
	@.ci/fuzz.sh $(FUZZTIME)

.PHONY: sim
sim: ## run the seeded simulations of whole calls
	@.ci/deps.sh build
	@pkgs="$(call with,TestSim)"; [ -n "$$pkgs" ] || { echo "sim: no TestSim anywhere" >&2; exit 1; }; \
	go test -count=1 -timeout 20m -run '^TestSim' -v $$pkgs

.PHONY: restart
restart: ## kill the daemon under 100 calls, with both engines
	@.ci/deps.sh build test
	TRUNKTAP_MANY=1 go test -count=1 -timeout 10m -run 'TestLiveRestartMany' -v ./cmd/trunktap

.PHONY: systemd
systemd: ## run the unit by a systemd of its own, in namespaces, and restart, kill, hang, drain and reload the daemon under calls (as root, three minutes)
	@.ci/deps.sh build test
	TRUNKTAP_SYSTEMD=1 go test -count=1 -timeout 10m -run 'TestLiveSystemd' -v ./cmd/trunktap

.PHONY: kills
kills: ## kill the daemon KILLS (1000) times at random moments of 50 calls that come and go
	@.ci/deps.sh build test
	go test -count=1 -timeout 3h -run '^TestLiveKills$$' -v ./cmd/trunktap -kills $(KILLS) -kill-calls 50

.PHONY: growing
growing: ## watch a long segment come into a real store in parts while the call goes on (two minutes)
	@.ci/deps.sh build
	TRUNKTAP_LONG=1 go test -count=1 -timeout 10m -run '^TestLiveGrowing$$' -v ./cmd/trunktap

.PHONY: soak
soak: ## send rubbish for SOAKTIME (10m), and SPOOFED (1000000) datagrams of nobody and INVITEs, at a daemon with 50 calls
	@.ci/deps.sh build
	go test -count=1 -timeout 2h -run '^TestLiveSoak$$' -v ./cmd/trunktap -soak $(SOAKTIME) -spoofed $(SPOOFED)

.PHONY: bits
bits: ## flip each bit of a recording, its log and its bundle in turn: verify finds each
	@.ci/deps.sh build
	TRUNKTAP_BITS=1 go test -count=1 -timeout 20m -run 'TestEveryBit|TestBundleEveryBit' -v ./recorder/archive

.PHONY: stores
stores: ## run the suite of stores against the emulators of Azure and Google Cloud Storage, too (installs them)
	@.ci/deps.sh build
	TRUNKTAP_STORES=1 go test -count=1 -timeout 20m -run 'Azure|GCS|S3' -v ./recorder/store/bucket
	go test -count=1 -timeout 20m -run 'RebuildS3|AttacksS3' -v ./recorder/archive

.PHONY: model
model: ## compare MODEL_SEQUENCES (10000000) random signal sequences with the naive model of the rules
	@.ci/deps.sh build
	GOGC=400 go test -count=1 -timeout 2h -run '^TestModel$$' -v ./suppress -sequences $(MODEL_SEQUENCES)

.PHONY: account
account: ## hold the account of ANY_CALLS (10000) random calls, others each time
	@.ci/deps.sh build
	go test -count=1 -timeout 2h -run '^TestAccountOfAnyCall$$' ./recorder -rapid.checks=$(ANY_CALLS) -rapid.seed=0

.PHONY: golden
golden: ## compare with the golden files (go test PACKAGE -run Golden -update rewrites them)
	@.ci/deps.sh build
	@pkgs="$(call with,Test[A-Za-z]*Golden)"; [ -n "$$pkgs" ] || { echo "golden: no Golden test anywhere" >&2; exit 1; }; \
	go test -count=1 -run Golden -v $$pkgs

.PHONY: bench
bench: ## measure relay, recording and signalling beside rtpengine (needs root; BENCH=-full: the scale curve too)
	@.ci/deps.sh build bench
	@go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trunktap ./cmd/trunktap
	@go build -trimpath -o bin/bench ./cmd/bench
	@mkdir -p bench-out
	@bin/bench -trunktap bin/trunktap -json bench-out/bench.json -svg bench-out/bench.svg -markdown bench-out/bench.md $(BENCH)

ROWS     ?= 10000000
ENGINES  ?= sqlite,postgres

.PHONY: catalog-bench
catalog-bench: ## search among ROWS (10000000) recordings in ENGINES (sqlite,postgres); takes an hour and 20 GB of TMPDIR each
	@.ci/deps.sh build test
	go test -count=1 -timeout 12h -run '^TestScale$$' -v ./recorder/catalog -rows $(ROWS) -engine $(ENGINES)

.PHONY: gobench
gobench: ## run the Go benchmarks; compare runs with benchstat (see .tools.mod)
	@.ci/deps.sh build
	@pkgs="$(call with,Benchmark)"; [ -n "$$pkgs" ] || { echo "gobench: no Benchmark anywhere" >&2; exit 1; }; \
	go test -run '^$$' -bench . -benchmem $$pkgs

.PHONY: lint
lint: ## check layout, formatting and style (builds the linter at the first run)
	@.ci/deps.sh build
	@.ci/filesize.sh
	@go build ./... # its loader now and then misses a package that is just being built: hence this, and the second run
	$(TOOL) golangci-lint run || $(TOOL) golangci-lint run

# The same compiler and headers give the same bytes: those of Debian 12 made what
# is committed. -g is for the maps' types; strip leaves these and takes the rest.
BPF       := media/relay/kernel/bpf/relay
BPF_CLANG := 14
bpf_build  = cd $(dir $(BPF)) && clang -target bpfel -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Wno-address-of-packed-member \
	-fdebug-compilation-dir=. -ffile-prefix-map=$(abspath $(dir $(BPF)))=. -I/usr/include/$$(gcc -dumpmachine) -c $(notdir $(BPF)).c -o $(1) && llvm-strip -g $(1)

.PHONY: bpf
bpf: ## compile the program of the kernel engine
	@.ci/deps.sh build bpf
	$(call bpf_build,$(abspath $(BPF).o))

.PHONY: bpf-check
bpf-check: ## compile it again and compare with what is committed
	@.ci/deps.sh build bpf
	@[ "$$(clang -dumpversion | cut -d. -f1)" = $(BPF_CLANG) ] || { echo "bpf-check: clang $(BPF_CLANG) is needed, this is $$(clang -dumpversion)" >&2; exit 1; }
	@again=$$(mktemp); trap 'rm -f "$$again"' EXIT; \
	( $(call bpf_build,$$again) ); \
	cmp "$$again" $(BPF).o && echo "bpf-check: $(BPF).o is what its source gives"

.PHONY: demo
demo: ## place a real call through the daemon and show what was recorded
	@.ci/deps.sh build demo
	@go build -trimpath -ldflags '$(LDFLAGS)' -o bin/trunktap ./cmd/trunktap
	@go build -trimpath -o bin/demo ./cmd/demo
	@bin/demo -trunktap bin/trunktap -out demo-out

.PHONY: clean
clean: ## remove what was built and what demo and benchmark wrote
	rm -rf bin demo-out bench-out
