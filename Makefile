# Each target is one line: what it does stands in the file it calls.

.PHONY: all build run install test check bench kernels conformance ci clean

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
	cargo test

# Format, lints, layers, house rules.
check:
	cargo fmt --check && cargo clippy --all-targets -- -D warnings && cargo test --test layers --test tidy

# Criterion-free benches in benches/.
bench:
	cargo bench

# What CI runs.
ci:
	sh .ci/run

clean:
	cargo clean
