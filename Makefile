# Each target is one line: what it does stands in the file it calls.

.PHONY: all build run install test check conformance kernels sim torture bench perf fuzz ci clean

all: build

# The program, optimised.
build:
	cargo build --release

# Install what is missing (as root), build, mount an embedded volume, work on it, report, unmount (KEEP=1: leave it).
run:
	sh scripts/run.sh

# The program, its name for mount(8), the systemd units (PREFIX=/usr, DESTDIR=).
install: build
	sh scripts/install.sh

# Unit, model and real-mount tests (mounts need root or fusermount3).
test:
	cargo test --workspace

# Format, lints, layers, house rules.
check:
	cargo fmt --all --check && cargo clippy --workspace --all-targets -- -D warnings && cargo test --test layers --test tidy

# pjdfstest, fsx (FSX_SECONDS=60 FSX_SEEDS="1 2 3 4 5 6 7 8") and real programs on a mount of each transport; root.
conformance:
	tests/conformance/pjdfstest.sh && tests/conformance/fsx.sh && tests/conformance/programs.sh

# Boots Linux 5.10, 6.1 and 6.12 in QEMU with the program inside.
kernels:
	tests/kernels/run.sh

# Clients and a server simulated in one thread, from SEEDS=10000 seeds nobody has tried (FIRST=1: from that one on).
sim:
	SIM_SEEDS=$(or $(SEEDS),10000) SIM_FIRST=$(or $(FIRST),$$(date +%s)000) cargo test --release --test sim clients_and_server -- --nocapture

# Servers and clients killed and networks cut under load (ROUNDS=200 of each), long random runs against a folder and over
# several mounts (STEPS=1000000), a tree of TREE=50000 files counted; root, hours.
torture:
	RINGFS_ROUNDS=$(or $(ROUNDS),200) RINGFS_TREE=$(or $(TREE),50000) cargo test --test torture -- --test-threads=1 --nocapture
	RINGFS_STEPS=$(or $(STEPS),1000000) cargo test --test model -- --test-threads=1 --nocapture

# The steps of a request inside the process: time and allocations.
bench:
	cargo bench

# Real mounts, measured from outside and interleaved: WORKLOAD=transport, memory, names, durable or waits; see perf/README.md.
perf:
	cargo build --release --workspace && target/release/perf $(or $(WORKLOAD),transport)

# A fuzz target with cargo-fuzz and a nightly compiler, e.g. TARGET=wire_frame SECS=60; `make test` runs the corpus.
fuzz:
	scripts/fuzz.sh $(or $(TARGET),wire_frame) $(or $(SECS),60)

# What CI runs, without the installing.
ci:
	scripts/ci.sh

clean:
	cargo clean
