# Two commands matter: `make demo` and `make test`. Each installs what it needs, builds, and runs.
#
# Other users than root need sudo, for Debian packages and network namespaces.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

SECONDS ?= 5
# Of Cargo.toml. `release` is what `make build` builds.
DEMO_PROFILE ?= demo
# Options of the benchmarks; for defaults see `xdpfwd-bench … --help`.
ROUNDS ?=
ONLY ?=
# Selection for the test machine; default: all.
SUITE ?=
KERNEL ?=

# The folder that cargo builds in: CARGO_TARGET_DIR and build.target-dir move it. Cargo is asked
# once, when a recipe needs it.
TARGET = $(eval TARGET := $$(shell cargo metadata --format-version 1 --no-deps --offline \
	| sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'))$(TARGET)
RELEASE = $(TARGET)/release
DEBUG = $(TARGET)/debug

# Packages of the workspace used by targets below.
BENCH_PACKAGE := xdpfwd-bench
SANITIZED_PACKAGES := xdpfwd-xsk xdpfwd-pipeline xdpfwd-stages

# Build dependencies: clang and libbpf-dev compile the XDP programs; libbpf links libelf and zlib.
# The feature xsk-rs needs m4 for libxdp (its bindings use libclang, which clang installs), and
# ipsec-mb its library.
BUILD_PACKAGES := gcc libc6-dev pkg-config clang linux-libc-dev libbpf-dev libelf-dev zlib1g-dev iproute2 ethtool
FEATURE_PACKAGES := m4 libipsec-mb-dev
# Independent programs that tests compare against.
TEST_PACKAGES := iputils-ping iperf3 python3 python3-scapy python3-cryptography tshark
# Packages for the test machine. `xdpfwd-vm prepare` installs QEMU, which must support igb.
VM_PACKAGES := busybox-static cpio xz-utils kmod

# Forwarders compared with xdpfwd. The results list each one whose package is unavailable; the
# others still run.
BENCH_PACKAGES := libxdp-dev valgrind
PEER_PACKAGES := dpdk-dev xdp-tools

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help
help: ## list the targets
	@echo "make demo   forward real packets through AF_XDP for $(SECONDS) seconds in a lab of network namespaces (SECONDS=n)"
	@echo "make test   run every test, those that need root and network namespaces included"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | grep -vE '^(demo|test):' | sed -E 's/:.*## /\t/' | expand -t 12

# Only the two programs that the demo runs, in a profile that compiles faster and without the
# optional stages, which configs/demo.toml does not use. DEMO_PROFILE=release keeps the default
# features, so that other targets reuse the build.
DEMO_PACKAGES := --package xdpfwd --package xdpfwd-lab --no-default-features

.PHONY: demo
demo: toolchain deps ## forward real packets through AF_XDP in a lab of network namespaces
	cargo build --profile $(DEMO_PROFILE) $(if $(filter demo,$(DEMO_PROFILE)),$(DEMO_PACKAGES)) --bin xdpfwd --bin xdpfwd-lab
	@$(call say_sudo,network namespaces and XDP)
	@$(SUDO) "$(TARGET)/$(DEMO_PROFILE)/xdpfwd-lab" demo --xdpfwd "$(TARGET)/$(DEMO_PROFILE)/xdpfwd" \
		--config configs/demo.toml --seconds $(SECONDS)

.PHONY: test
test: toolchain test-deps ## run every test
	@$(call say_sudo,the tests named root_*)
	.ci/test

.PHONY: test-long
test-long: toolchain test-deps ## run tests that take minutes: millions of packets, a thousand restarts, overload
	@$(call say_sudo,the tests named root_*)
	.ci/test-long

.PHONY: loom
loom: toolchain ## model-check the rings: every interleaving, each memory ordering weakened (part of `make test`)
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$(TARGET)/loom" \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo test --test loom --release

# One boot for each suite and kernel. Kernels and QEMU are fetched the first time, 300 MB, and kept
# in ~/.cache/xdpfwd-vm.
.PHONY: vmtest
vmtest: vm-build ## test AF_XDP zero-copy and more on other kernels, in an emulated machine (SUITE=zero-copy KERNEL=7.2)
	"$(DEBUG)/xdpfwd-vm" run --jobs 2 $(SUITE) $(if $(KERNEL),--kernel $(KERNEL))

.PHONY: vmtest-ci
vmtest-ci: vm-build ## run CI's part of vmtest: each suite on its main kernel
	"$(DEBUG)/xdpfwd-vm" run --ci --jobs 2 $(SUITE) $(if $(KERNEL),--kernel $(KERNEL))

# Use the profile of the tests, which CI has already built.
.PHONY: vm-build
vm-build: toolchain test-deps
	@$(call install,$(VM_PACKAGES))
	cargo build --workspace --all-features --bin xdpfwd-vm
	"$(DEBUG)/xdpfwd-vm" prepare $(if $(KERNEL),--kernel $(KERNEL))

.PHONY: fuzz
fuzz: toolchain nightly ## feed random bytes to rings, ports, rules, packets, keys, states and ESP, each for SECONDS (needs nightly and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "There is no cargo-fuzz: cargo install cargo-fuzz --locked" >&2; exit 1; }
	for target in rings ports rules packets keys state esp_open; do \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) -max_len=2048 -len_control=0 -print_final_stats=1; \
	done

# ThreadSanitizer must instrument the standard library, or it reports false races: build-std from
# rust-src. The compiler requires it.
.PHONY: sanitize
sanitize: toolchain nightly test-deps ## test rings, ports and workers under AddressSanitizer and ThreadSanitizer (needs nightly)
	@test -e "$$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" || { \
		echo "ThreadSanitizer needs the sources of std: rustup component add rust-src --toolchain nightly" >&2; exit 1; }
	CARGO_TARGET_DIR="$(TARGET)/asan" RUSTFLAGS="-Zsanitizer=address" LSAN_OPTIONS="suppressions=$(CURDIR)/.ci/lsan.supp" \
		cargo +nightly test $(SANITIZED)
	CARGO_TARGET_DIR="$(TARGET)/tsan" RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test -Zbuild-std $(SANITIZED)

SANITIZED = $(addprefix --package ,$(SANITIZED_PACKAGES)) --lib --tests --target $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: nightly
nightly:
	@cargo +nightly --version >/dev/null 2>&1 || { \
		echo "This needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }

.PHONY: build
build: toolchain deps ## build the binaries, in target/release: xdpfwd, xdpfwd-lab, xdpfwd-bench, xdpfwd-vm
	cargo build --release --bins

.PHONY: bench-forward
bench-forward: bench-build ## measure packets per second, compared with a bare loop in C, testpmd, bridge, … (ROUNDS=n SECONDS=n ONLY=xdpfwd,bare-loop)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" forward $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-latency
bench-latency: bench-build ## measure latency of xdpfwd and testpmd at 10, 50, 90 % load, and CPU use when idle (ROUNDS=n SECONDS=n ONLY=…)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" latency $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-rings
bench-rings: toolchain deps ## measure ns per packet of rings, port and worker, compared with C twins and libxdp (criterion)
	@$(call install,$(BENCH_PACKAGES))
	cargo bench --package $(BENCH_PACKAGE) --bench rings

.PHONY: bench-tables
bench-tables: toolchain deps ## measure ns per batch and per update of tables shared with the control plane (criterion)
	@$(call install,$(BENCH_PACKAGES))
	cargo bench --package $(BENCH_PACKAGE) --bench tables

.PHONY: bench-classify
bench-classify: bench-build ## measure ns per lookup of the filter's classifier and dpdk-test-acl, on ClassBench-like rules (ROUNDS=n)
	"$(RELEASE)/xdpfwd-bench" classify $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-esp
bench-esp: bench-build ## measure ns and cycles per packet of each ESP backend, its AEAD alone and dpdk-test-crypto-perf (ROUNDS=n)
	"$(RELEASE)/xdpfwd-bench" esp $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-drop
bench-drop: bench-build ## measure the cost of a filter in user space and in the kernel, with 0 to 10,000 rules (ROUNDS=n SECONDS=n)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" drop $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS)

.PHONY: bench-cost
bench-cost: bench-build ## measure cycles per packet and task, with and without ESP (ROUNDS=n SECONDS=n)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" cost $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS)

.PHONY: bench-instructions
bench-instructions: toolchain deps ## compare instructions per packet with benches/instructions.json (UPDATE=1 writes it)
	@$(call install,$(BENCH_PACKAGES))
	cargo build --release --package $(BENCH_PACKAGE) --bins --example counted
	"$(RELEASE)/xdpfwd-bench" instructions $(if $(UPDATE),--update)

.PHONY: bench-build
bench-build: toolchain deps
	@$(call install,$(BENCH_PACKAGES) $(FEATURE_PACKAGES))
	cargo build --release --bins --features xdpfwd/xsk-rs,$(BENCH_PACKAGE)/ipsec-mb
	@$(call install,$(PEER_PACKAGES)) || echo "Not installed; the results will name what is missing: $(PEER_PACKAGES)" >&2

# SECONDS has a default for the demo; the benchmarks have their own.
BENCH_SECONDS = $(if $(filter command% environment%,$(origin SECONDS)),--seconds $(SECONDS))

SHELL_SCRIPTS := .ci/parts .ci/run .ci/test .ci/test-long .ci/test-runner \
	crates/vm/src/init.sh crates/vm/src/run.sh examples/own-appliance/ping.sh

.PHONY: lint
lint: toolchain feature-deps ## check formatting, clippy, shellcheck and rustdoc, warnings denied
	@$(call install,shellcheck)
	cargo fmt --all --check
	for example in examples/*/Cargo.toml; do cargo fmt --check --manifest-path "$$example"; done
	shellcheck --severity=warning $(SHELL_SCRIPTS)
	.ci/import-cycles
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo clippy --workspace --all-features --test 'vm_*' -- -D warnings
	cargo clippy --package xdpfwd --no-default-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --all-features --document-private-items
	cargo fetch --quiet --locked
	cargo package --workspace --no-verify --offline --allow-dirty --quiet

.PHONY: ci
ci: ## run everything that CI runs
	.ci/run

.PHONY: deps
deps: ## install the Debian packages for a build
	@$(call install,$(BUILD_PACKAGES))

.PHONY: feature-deps
feature-deps: ## install also the packages for a build with all features
	@$(call install,$(BUILD_PACKAGES) $(FEATURE_PACKAGES))

.PHONY: test-deps
test-deps: ## install also the Debian packages for the tests
	@$(call install,$(BUILD_PACKAGES) $(FEATURE_PACKAGES) $(TEST_PACKAGES))

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { \
		echo "No Rust toolchain: there is no cargo on the PATH."; \
		echo "Get one with rustup (https://rustup.rs), or on Debian 13 and later:"; \
		echo "    apt-get install rustup && rustup default stable"; \
		exit 1; } >&2

# Prints why sudo is needed, before using it.
say_sudo = test -z "$(SUDO)" || echo "Using sudo for $(1)."

# Installs missing packages.
define install
missing=""; \
for package in $(1); do \
	dpkg-query -W -f='$${db:Status-Status}' "$$package" 2>/dev/null | grep -qx installed || missing="$$missing $$package"; \
done; \
if [ -n "$$missing" ]; then \
	echo "Installing Debian packages:$$missing"; \
	test -z "$(SUDO)" || echo "Using sudo for apt-get."; \
	$(SUDO) apt-get -qq update; \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $$missing >/dev/null; \
fi
endef
