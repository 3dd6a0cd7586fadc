# `make help` lists the targets. Everything that a target needs beyond Rust, a C compiler
# and a package manager is installed by the scripts in tests/setup.

TARGET := $(or $(CARGO_TARGET_DIR),target)
CLIENTS := $(TARGET)/clients
# nextest where there is one. One test that hangs must not use up the time of all others.
RUN := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test)
# The tests whose outcome depends on the engine, by parts of their names: installs, calls, programs, ownership, crashes,
# tunnels.
ENGINE_TESTS := installing:: recovery:: ownership:: whole:: container:: is_brought_up backends::as_root guest::as_plain_user \
	programs::as_root programs::as_plain_user is_squeezed tunnel::

# What Podman's API never says, so that no test can see it: the README lists it under the engines.
PODMAN_LACKS := a_backend_that_its_policy_starts_again_is_starting

.DEFAULT_GOAL := help
.PHONY: help build windows deb demo test test-engines test-docker-26 test-podman setup bench lint lint-format lint-code lint-docs lint-proto lint-windows clean

help: ## show this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

build: ## build the release binary
	cargo build --release

deb: ## build the Debian package into target/deploy
	deploy/deb.sh

demo: ## show the broker at work, from nothing to a call
	./examples/demo.sh

setup: ## install and start what the tests need (needs root or sudo the first time)
	tests/setup/engine.sh
	tests/setup/clients.sh
	tests/setup/windows.sh

windows: ## build the broker for Windows (installs what that needs)
	tests/setup/windows.sh
	cat $(TARGET)/windows/missing 2>/dev/null || cargo build --target x86_64-pc-windows-gnu --bin longshore

test: setup windows ## run all tests, in parallel, against a real Docker engine and real clients
	cargo $(RUN)

test-engines: test-docker-26 test-podman ## run what depends on the engine on Docker 26 and on Podman (needs root)

test-docker-26 test-podman: test-%: setup
	cargo $(RUN) --no-run --test broker --test exec --test compose
	timeout --foreground 1500 tests/setup/on-engine.sh $* cargo $(RUN) --offline --test broker --test exec --test compose -- $(ENGINE_TESTS) \
		$(if $(filter podman,$*),$(PODMAN_LACKS:%=--skip %))

bench: ## measure against others and update the README's tables
	tests/setup/engine.sh
	tests/setup/clients.sh
	tests/setup/peers.sh
	cargo build --release
	install -D $(TARGET)/*/release/longshore $(TARGET)/shipped/longshore
	BENCH_BROKER=$(abspath $(TARGET)/shipped/longshore) cargo bench --bench carry

lint: lint-format lint-code lint-docs lint-proto ## check formatting, lints and docs of the code and of the API

lint-format:
	cargo fmt --check

lint-code:
	cargo clippy --all-targets -- -D warnings

lint-docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

# Apart from the others: it needs what the build for Windows needs.
lint-windows:
	tests/setup/windows.sh
	cat $(TARGET)/windows/missing 2>/dev/null || cargo clippy --target x86_64-pc-windows-gnu --lib --bin longshore -- -D warnings

# The clients come with buf.
lint-proto:
	tests/setup/clients.sh
	$(CLIENTS)/bin/buf lint proto
	$(CLIENTS)/bin/buf format proto --diff --exit-code

clean: ## remove everything that was built or downloaded; the engine stays
	cargo clean
