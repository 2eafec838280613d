#!/usr/bin/env bash
# make ci: every check, in the order in which it fails fastest. Needs root, and what .ci/run installs.
#   STEPS="check test"   only these of: check test sim conformance kernels (the kernels boot under emulation for minutes, and
#                        sim takes fresh seeds, so both are asked for by name, or by `make kernels` and `make sim`)
set -euo pipefail
cd "$(dirname "$0")/.."
parameter=/sys/module/fuse/parameters/enable_uring
[ -e $parameter ] || modprobe fuse || true
# FUSE over io_uring is off after boot; without it the checks would pass by it.
if [ -w $parameter ]; then
    before=$(cat $parameter)
    trap 'echo "$before" >$parameter' EXIT
    echo Y >$parameter
fi
step() {
    local name=$1 started=$SECONDS
    shift
    case " ${STEPS:-check test conformance} " in *" $name "*) ;; *) return 0 ;; esac
    printf '\n==== %s\n' "$name"
    "$@"
    printf '==== %s: %s s\n' "$name" $((SECONDS - started))
}
conformance() {
    tests/conformance/pjdfstest.sh
    FSX_SECONDS=10 FSX_SEEDS="1 2" tests/conformance/fsx.sh
    tests/conformance/programs.sh
}
step check make check
# Fixed seeds: red means a change broke something. `make test` draws fresh ones.
step test env RINGFS_SEED="${RINGFS_SEED:-1}" cargo test --workspace --no-fail-fast
# Seeds that nobody has tried: asked for by name as long as one in some thousands still finds something.
step sim make sim SEEDS="${SIM_SEEDS:-3000}"
step conformance conformance
step kernels tests/kernels/run.sh
printf '\nci: everything passed in %s s\n' $SECONDS
