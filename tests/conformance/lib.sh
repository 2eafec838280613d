# What the conformance scripts share; sourced, not run. Comes in: RINGFS (a program to test instead of building one),
# TRANSPORTS. Goes out: mounts that are gone when the script ends, counts, a closing line, an exit code.
# Ends only processes it started, by number.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
source "$root/scripts/retry.sh"
target=${CARGO_TARGET_DIR:-$root/target}
what=$(basename "$0" .sh)
passed=0
failed=0
skipped=0

pass() { passed=$((passed + 1)); echo "PASS $*"; }
fail() { failed=$((failed + 1)); echo "FAIL $*"; }
skip() { skipped=$((skipped + 1)); echo "SKIP $*"; }
need_root() { [ "$(id -u)" = 0 ] || { echo "$what: needs root" >&2; exit 1; }; }

# check NAME COMMAND...: the command must succeed; its last words are shown when it does not.
check() {
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$work/said" 2>&1; then pass "$name ($((SECONDS - start)) s)"; else
        fail "$name: gave $?"
        tail -n 25 "$work/said" | sed 's/^/    /'
    fi
}

if [ -z "${RINGFS:-}" ]; then
    (cd "$root" && cargo build --quiet --bin ringfs --example exercise)
    RINGFS=$target/debug/ringfs
fi
EXERCISE=${EXERCISE:-$target/debug/examples/exercise}

# tool NAME VERSION: the path of a program from the crate registry, installed beside the build once.
tool() {
    local path=$target/tools/bin/$1
    [ -x "$path" ] || retry cargo install --quiet --locked --root "$target/tools" --target-dir "$target/tools/build" --version "$2" "$1" >&2
    echo "$path"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/ringfs-$what.XXXXXX")
chmod 755 "$work"
mounts=()
plain_mounts=()
pids=()

# mount_ringfs SOURCE DIR [FLAGS...]
mount_ringfs() {
    local source=$1 dir=$2
    shift 2
    mkdir -p "$dir"
    "$RINGFS" mount "$source" "$dir" --log "$work/$(basename "$dir").log" "$@"
    mounts+=("$dir")
}
# Never longer than ten seconds with a server that lives.
umount_ringfs() {
    timeout 10 "$RINGFS" umount "$1" || return 1
    ! grep -q " $1 fuse" /proc/mounts
}
status_has() { "$RINGFS" status "$1" --json | tr -d ' \n' | grep -q "$2"; }
daemon_of() { "$RINGFS" status "$1" --json | tr -d ' \n' | sed 's/.*"daemon":{"pid":\([0-9]*\).*/\1/'; }

leave() {
    local code=$?
    trap - EXIT INT TERM
    set +e
    for dir in "${mounts[@]}"; do
        grep -q " $dir fuse" /proc/mounts || continue
        timeout 20 "$RINGFS" umount --force "$dir" >/dev/null 2>&1 || umount -l "$dir"
    done
    for dir in "${plain_mounts[@]}"; do umount "$dir" 2>/dev/null || umount -l "$dir"; done
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    [ -n "${KEEP:-}" ] && echo "kept: $work" || rm -rf "$work"
    exit $code
}
trap leave EXIT
trap 'exit 130' INT TERM

# The closing line, and the exit code that says the same.
finish() {
    echo "$what: $passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ] && [ $passed -gt 0 ]
}

# The transports this host offers, best first.
offered() {
    if [ -n "${TRANSPORTS:-}" ]; then echo "$TRANSPORTS"; return; fi
    local list=""
    [ "$(cat /sys/module/fuse/parameters/enable_uring 2>/dev/null)" = Y ] && list="uring"
    echo "$list ring blocking"
}
