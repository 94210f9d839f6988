# The main targets are `demo` and `test`. Each installs the packages that it needs, builds, and runs.
#
# Users other than root need sudo, for Debian packages and network namespaces.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

SECONDS ?= 5
# Cargo profile of the demo, defined in Cargo.toml; or `release`, the profile of `make build`.
DEMO_PROFILE ?= demo
# Options of the benchmarks: number of rounds, and forwarders to measure. `xdpfwd-bench … --help`
# prints the defaults.
ROUNDS ?=
ONLY ?=
# More options of `make matrix` and `make matrix-quick`, such as --rows, --columns and --fresh.
MATRIX_OPTIONS ?=
# Duration of the target soak.
MINUTES ?= 60
# Suite and kernel for the target vmtest; if empty, all.
SUITE ?=
KERNEL ?=

# Cargo's target folder, which CARGO_TARGET_DIR or build.target-dir can change. Make asks cargo once,
# when a recipe first uses TARGET.
TARGET = $(eval TARGET := $$(shell cargo metadata --format-version 1 --no-deps --offline \
	| sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'))$(TARGET)
RELEASE = $(TARGET)/release
DEBUG = $(TARGET)/debug

# Cargo packages used by the targets below.
BENCH_CRATE := xdpfwd-bench
SANITIZED_CRATES := xdpfwd-xsk xdpfwd-pipeline xdpfwd-stages

# Build dependencies: clang and libbpf-dev compile the XDP programs; libbpf links libelf and zlib.
# The feature xsk-rs needs m4 to build libxdp, and libclang (installed with clang) to generate
# bindings. The feature ipsec-mb needs libipsec-mb.
BUILD_PACKAGES := gcc libc6-dev pkg-config clang linux-libc-dev libbpf-dev libelf-dev zlib1g-dev iproute2 ethtool
FEATURE_PACKAGES := m4 libipsec-mb-dev
# Independent programs with which the tests compare xdpfwd.
TEST_PACKAGES := bpftool iputils-ping iperf3 python3 python3-scapy python3-cryptography tmux tshark
# Packages that only `make test-long` needs.
TEST_LONG_PACKAGES := linux-perf chromium poppler-utils
# Packages for the emulated machine. `xdpfwd-vm prepare` installs QEMU, which must support igb.
VM_PACKAGES := busybox-static cpio xz-utils kmod

# Packages that the benchmarks need.
BENCH_PACKAGES := libxdp-dev valgrind
# Forwarders that the benchmarks compare with xdpfwd. If one is unavailable, the results list it as
# missing, and the benchmarks run without it.
PEER_PACKAGES := dpdk-dev xdp-tools nftables

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.PHONY: help
help: ## list the targets
	@echo "make demo   forward real packets through AF_XDP for $(SECONDS) seconds in a lab of network namespaces (SECONDS=n)"
	@echo "make test   run every test, including those that need root and network namespaces"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | grep -vE '^(demo|test):' | sed -E 's/:.*## /\t/' | expand -t 12

# The profile `demo` compiles fast. With it, build only the two programs that the demo runs, without
# the optional stages, which configs/demo.toml does not use. With DEMO_PROFILE=release, build with
# the default features, so that other targets can reuse the build.
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
	@$(call install,$(TEST_LONG_PACKAGES))
	@$(call say_sudo,the tests named root_*)
	.ci/test-long

.PHONY: soak
soak: toolchain test-deps ## run traffic, reloads and flapping interfaces for MINUTES=60; check frames and memory
	@$(call say_sudo,the tests named root_*)
	$(SUDO) env "PATH=$$PATH" XDPFWD_SOAK_MINUTES=$(MINUTES) \
		cargo test --package xdpfwd --all-features --test root_soak -- --ignored --nocapture

.PHONY: loom
loom: toolchain ## model-check every interleaving of the rings; loom must also detect each memory ordering weakened on purpose (part of `make test`)
	RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$(TARGET)/loom" \
		CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 cargo test --test loom --release

# Boots the emulated machine once for each suite and kernel. The first run downloads kernels and
# QEMU (300 MB) to ~/.cache/xdpfwd-vm.
.PHONY: vmtest
vmtest: vm-build ## test AF_XDP zero-copy and more on other kernels, in an emulated machine (SUITE=zero-copy KERNEL=7.2)
	"$(DEBUG)/xdpfwd-vm" run --jobs 2 $(SUITE) $(if $(KERNEL),--kernel $(KERNEL))

.PHONY: vmtest-ci
vmtest-ci: vm-build ## run the part of vmtest that CI runs (`xdpfwd-vm list` shows it)
	"$(DEBUG)/xdpfwd-vm" run --ci --jobs 2 $(SUITE) $(if $(KERNEL),--kernel $(KERNEL))

# Builds xdpfwd-vm with the profile of the tests: CI has already built the dependencies with it.
.PHONY: vm-build
vm-build: toolchain test-deps
	@$(call install,$(VM_PACKAGES))
	cargo build --workspace --all-features --bin xdpfwd-vm
	"$(DEBUG)/xdpfwd-vm" prepare $(if $(KERNEL),--kernel $(KERNEL))

.PHONY: fuzz
fuzz: toolchain nightly ## fuzz rings, ports, rules, payload scans, packets, keys, ESP state files and ESP decapsulation, each for SECONDS (needs nightly and cargo-fuzz)
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is not installed; run: cargo install cargo-fuzz --locked" >&2; exit 1; }
	for target in rings ports rules payload packets keys state esp_open; do \
		cargo +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) -max_len=2048 -len_control=0 -print_final_stats=1; \
	done

# ThreadSanitizer reports false races unless the standard library is instrumented too, and the
# compiler refuses to mix both. Therefore -Zbuild-std builds the standard library from the rustup
# component rust-src.
.PHONY: sanitize
sanitize: toolchain nightly test-deps ## test rings, ports and workers under AddressSanitizer and ThreadSanitizer (needs nightly)
	@test -e "$$(rustc +nightly --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" || { \
		echo "ThreadSanitizer needs the source of the standard library; run: rustup component add rust-src --toolchain nightly" >&2; exit 1; }
	CARGO_TARGET_DIR="$(TARGET)/asan" RUSTFLAGS="-Zsanitizer=address" LSAN_OPTIONS="suppressions=$(CURDIR)/.ci/lsan.supp" \
		cargo +nightly test $(SANITIZED_TESTS)
	CARGO_TARGET_DIR="$(TARGET)/tsan" RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test -Zbuild-std $(SANITIZED_TESTS)

SANITIZED_TESTS = $(addprefix --package ,$(SANITIZED_CRATES)) --lib --tests --target $(shell rustc -vV | sed -n 's/^host: //p')

.PHONY: nightly
nightly:
	@cargo +nightly --version >/dev/null 2>&1 || { \
		echo "This target needs a nightly toolchain; run: rustup toolchain install nightly" >&2; exit 1; }

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
bench-rings: toolchain deps ## measure ns per packet of rings, port and worker, compared with the same loops in C and with libxdp (criterion)
	@$(call install,$(BENCH_PACKAGES))
	cargo bench --package $(BENCH_CRATE) --bench rings

.PHONY: bench-tables
bench-tables: toolchain deps ## measure ns per batch and per update of tables shared with the control plane (criterion)
	@$(call install,$(BENCH_PACKAGES))
	cargo bench --package $(BENCH_CRATE) --bench tables

.PHONY: bench-payload
bench-payload: toolchain deps ## measure ns per payload scan of random bytes, and of the payloads that cost the most steps (criterion)
	cargo bench --package $(BENCH_CRATE) --bench payload

.PHONY: bench-classify
bench-classify: bench-build ## measure ns per lookup of the filter's classifier and of dpdk-test-acl, on ClassBench-like rules (ROUNDS=n)
	"$(RELEASE)/xdpfwd-bench" classify $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-esp
bench-esp: bench-build ## measure ns and cycles per packet of each ESP backend, of its AEAD alone and of dpdk-test-crypto-perf (ROUNDS=n)
	"$(RELEASE)/xdpfwd-bench" esp $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-drop
bench-drop: bench-build ## measure the cost of a filter in user space and in the kernel, with 0 to 10,000 rules (ROUNDS=n SECONDS=n)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" drop $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS)

.PHONY: bench-cost
bench-cost: bench-build ## measure cycles per packet and task, with and without ESP (ROUNDS=n SECONDS=n)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" cost $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS)

.PHONY: bench-paths
bench-paths: bench-build ## measure packets per second, system calls, copies and cycles by account of each packet path (ROUNDS=n SECONDS=n ONLY=af_xdp-copy,packet)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" paths $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-copies
bench-copies: bench-build ## measure how often each packet path copies a packet, by the slope of cost over length (ROUNDS=n SECONDS=n ONLY=…)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" copies $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS) $(if $(ONLY),--only $(ONLY))

.PHONY: bench-sampling
bench-sampling: bench-build ## measure how much slower xdpfwd forwards while kernel_ledger = "sampled" measures (ROUNDS=n)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" sampling $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: bench-esp-stage
bench-esp-stage: bench-build ## compare the stage esp-seal in the lab with the stage alone, with few and many frames (ROUNDS=n SECONDS=n)
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" cost --compare-stage $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS)

.PHONY: bench-instructions
bench-instructions: toolchain deps ## compare instructions per packet with benches/instructions.json (UPDATE=1 rewrites that file)
	@$(call install,$(BENCH_PACKAGES))
	cargo build --release --package $(BENCH_CRATE) --bins --example counted
	"$(RELEASE)/xdpfwd-bench" instructions $(if $(UPDATE),--update)

.PHONY: matrix
matrix: bench-build ## measure what security costs on every packet path; continues after an interruption (MATRIX_OPTIONS="--rows … --fresh")
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" matrix $(MATRIX_ARGUMENTS)

.PHONY: matrix-quick
matrix-quick: bench-build ## the same with two frame lengths and three columns, in at most 10 minutes
	@$(call say_sudo,network namespaces and XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" matrix --quick $(MATRIX_ARGUMENTS)

# Ports of the generator, the sink and, unless something else forwards, the forwarder.
TX ?=
RX ?=
FWD_IN ?=
FWD_OUT ?=
NIC_OPTIONS ?=

.PHONY: nic-ports
nic-ports:
	@test -n "$(TX)" -a -n "$(RX)" || { echo "Set TX and RX to the interfaces of generator and sink; see docs/line-rate.md." >&2; exit 1; }

.PHONY: bench-nic
bench-nic: nic-ports bench-build ## measure cells of the matrix between real ports: docs/line-rate.md (TX=eth1 RX=eth4 FWD_IN=eth2 FWD_OUT=eth3 NIC_OPTIONS="--check")
	@$(call say_sudo,XDP)
	$(SUDO) "$(RELEASE)/xdpfwd-bench" nic --tx $(TX) --rx $(RX) $(if $(FWD_IN)$(FWD_OUT),--fwd-in $(FWD_IN) --fwd-out $(FWD_OUT),--forwarder none) $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS) $(NIC_OPTIONS)

MATRIX_ARGUMENTS = $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_SECONDS) $(if $(ONLY),--rows $(ONLY)) $(MATRIX_OPTIONS)

.PHONY: bench-build
bench-build: toolchain deps
	@$(call install,$(BENCH_PACKAGES) $(FEATURE_PACKAGES))
	cargo build --release --bins --features xdpfwd/xsk-rs,$(BENCH_CRATE)/ipsec-mb
	@$(call install,$(PEER_PACKAGES)) || echo "Cannot install all of: $(PEER_PACKAGES). The results will list the missing forwarders." >&2

# Passes SECONDS to a benchmark only if the user has set it: the default above is for the demo, and
# each benchmark has its own default.
BENCH_SECONDS = $(if $(filter command% environment%,$(origin SECONDS)),--seconds $(SECONDS))

SHELL_SCRIPTS := .ci/parts .ci/run .ci/test .ci/test-long .ci/test-runner \
	crates/vm/src/init.sh crates/vm/src/run.sh examples/own-appliance/ping.sh

.PHONY: lint
lint: toolchain feature-deps ## run rustfmt, shellcheck, clippy, rustdoc and other checks; warnings are errors
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
deps: ## install the Debian packages for a build with the default features
	@$(call install,$(BUILD_PACKAGES))

.PHONY: feature-deps
feature-deps: ## install the Debian packages for a build with all features
	@$(call install,$(BUILD_PACKAGES) $(FEATURE_PACKAGES))

.PHONY: test-deps
test-deps: ## install the Debian packages for the tests
	@$(call install,$(BUILD_PACKAGES) $(FEATURE_PACKAGES) $(TEST_PACKAGES))

.PHONY: toolchain
toolchain:
	@command -v cargo >/dev/null || { \
		echo "No Rust toolchain: cargo is not on the PATH."; \
		echo "Install Rust with rustup (https://rustup.rs), or on Debian 13 and later:"; \
		echo "    apt-get install rustup && rustup default stable"; \
		exit 1; } >&2

# Prints what the next command needs sudo for (argument 1), unless the user is root.
say_sudo = test -z "$(SUDO)" || echo "Using sudo for $(1)."

# Installs those Debian packages of argument 1 that are missing.
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
