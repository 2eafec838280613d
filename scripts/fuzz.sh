#!/bin/sh
# Fuzzes one target for some seconds: fuzz.sh TARGET SECONDS. What the fuzzer finds stays outside the repository;
# an input that breaks something is printed by it and belongs into fuzz/corpus/TARGET, where every test run tries it.
set -eu
cd "$(dirname "$0")/.."
target=$1
seconds=$2
if [ ! -f "fuzz/targets/$target.rs" ]; then
    echo "no fuzz target $target; there are: $(ls fuzz/targets | sed 's/\.rs$//' | tr '\n' ' ')" >&2
    exit 2
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "cargo-fuzz is missing: run \`cargo install cargo-fuzz\` and \`rustup toolchain install nightly\`" >&2
    exit 1
fi
found=target/fuzz/$target
mkdir -p "$found"
exec cargo +nightly fuzz run "$target" "$found" "fuzz/corpus/$target" -- "-max_total_time=$seconds" -max_len=16384
