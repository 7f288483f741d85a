SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=

export LAB_KERNELS LAB_USERS LAB_FILTER

# The one file that a build yields. Cargo itself is asked for its place, which depends on the target and on
# CARGO_TARGET_DIR; target/brig is a link to it that depends on neither.
BUILD = cargo build --release --locked --quiet --bin brig --message-format=json-render-diagnostics \
	| sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'

.PHONY: build run test lab lab-shell check bench bench-quick install clean

build: ## build the release binary
	@hack/setup.sh build
	@binary=$$($(BUILD)); mkdir -p target; ln -sfn "$$binary" target/brig; echo "built $$binary (target/brig)"

run: ## build, make a root file system, and run bundles/hello
	@hack/setup.sh run
	@$(MAKE) build
	@hack/rootfs bundles/hello/rootfs
	@target/brig run --bundle bundles/hello hello-$$$$

test: ## every test: unit, bundles, integration, engines
	@hack/setup.sh test
	@hack/test.sh

lab: ## the integration suite in virtual machines with systemd and cgroup v2 (integration/vm/README.md)
	@hack/setup.sh lab
	@integration/vm/lab

lab-shell: ## a shell in such a machine: LAB_KERNELS=6.1 LAB_USERS=user
	@hack/setup.sh lab
	@integration/vm/run -k "$(or $(firstword $(LAB_KERNELS)),6.12)" -u "$(or $(firstword $(LAB_USERS)),root)" -s

check: ## formatting, lints, floors
	@hack/setup.sh build
	@cargo fmt --check
	@cargo clippy --quiet --locked --all-targets -- -D warnings
	@hack/floors.sh

bench: ## brig beside crun and runc
	@hack/setup.sh test
	@$(MAKE) build
	@cargo run --release --locked --quiet --example bench -- $(BENCH_FLAGS)

bench-quick: ## the same in a minute
	@$(MAKE) bench BENCH_FLAGS=--quick

install: build ## put brig into PREFIX/bin, under DESTDIR if that is set
	@install -D -m 0755 "$$(readlink -f target/brig)" "$(DESTDIR)$(PREFIX)/bin/brig"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/brig"

clean: ## remove what was built
	@cargo clean --quiet
	@rm -f target/brig
