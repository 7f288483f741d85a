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

.PHONY: build run test test-filtered lab lab-shell check check-arch bench bench-quick docs install uninstall deb test-install clean

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

test-filtered: ## the integration suite with newer system calls taken away, one group at a time
	@hack/setup.sh test
	@hack/test-filtered.sh $(FILTERS)

check: ## formatting, lints, floors
	@hack/setup.sh build
	@cargo fmt --check
	@cargo clippy --quiet --locked --all-targets -- -D warnings
	@hack/floors.sh

check-arch: ## build for aarch64 and riscv64, and try what was built under emulation
	@hack/setup.sh build
	@hack/check-arch

bench: ## brig beside crun and runc
	@hack/setup.sh test
	@$(MAKE) build
	@cargo run --release --locked --quiet --example bench -- $(BENCH_FLAGS)

bench-quick: ## the same in a minute
	@$(MAKE) bench BENCH_FLAGS=--quick

docs: ## make the man pages and completions, into target/docs
	@hack/setup.sh build
	@rm -rf target/docs && cargo run --locked --quiet --example docs -- target/docs

install: build docs ## put brig, man pages and completions below PREFIX, under DESTDIR if that is set
	@install -D -m 0755 "$$(readlink -f target/brig)" "$(DESTDIR)$(PREFIX)/bin/brig"
	@install -d "$(DESTDIR)$(PREFIX)/share/man/man1"
	@install -m 0644 target/docs/man/*.1 "$(DESTDIR)$(PREFIX)/share/man/man1/"
	@install -D -m 0644 target/docs/bash/brig "$(DESTDIR)$(PREFIX)/share/bash-completion/completions/brig"
	@install -D -m 0644 target/docs/zsh/_brig "$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_brig"
	@install -D -m 0644 target/docs/fish/brig.fish "$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/brig.fish"
	@echo "installed $(DESTDIR)$(PREFIX)/bin/brig, its man pages and completions"

uninstall: ## remove what install put in place
	@rm -f "$(DESTDIR)$(PREFIX)/bin/brig" "$(DESTDIR)$(PREFIX)"/share/man/man1/brig.1 \
		"$(DESTDIR)$(PREFIX)"/share/man/man1/brig-*.1 \
		"$(DESTDIR)$(PREFIX)/share/bash-completion/completions/brig" \
		"$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_brig" \
		"$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/brig.fish"

test-install: ## check install, uninstall and the package, with the binary that is there
	@hack/test-install.sh

deb: ## build a Debian package, into target
	@hack/deb.sh

clean: ## remove what was built
	@cargo clean --quiet
	@rm -f target/brig
