#!/usr/bin/env bash
# Boots each kernel that ringfs promises to run on, with the program and its checks inside, and judges what
# the console says. Comes in: nothing, or the series to boot (5.10 6.1 6.12). Goes out: each kernel's FAIL and
# SKIP lines, one closing line per kernel, exit code 1 when any kernel failed.
#   SECONDS_MAX=600      how long one kernel may take before it counts as hung
#   RINGFS=, EXERCISE=   programs to use instead of building them
# Emulated without hardware help, so times mean nothing here; what each kernel offers and refuses does.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
seconds_max=${SECONDS_MAX:-600}
series=("$@")
[ ${#series[@]} -gt 0 ] || series=(5.10 6.1 6.12)

missing=()
command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
command -v cpio >/dev/null || missing+=(cpio)
busybox=$(command -v busybox || true)
{ [ -n "$busybox" ] && ! ldd "$busybox" >/dev/null 2>&1; } || missing+=(busybox-static)
if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || { echo "kernels: missing ${missing[*]}; install them, or run as root" >&2; exit 1; }
    source scripts/retry.sh
    retry apt-get -qq -o DPkg::Lock::Timeout=300 update
    export DEBIAN_FRONTEND=noninteractive
    retry apt-get -qq -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "${missing[@]}" >/dev/null
    busybox=$(command -v busybox)
fi

if [ -z "${RINGFS:-}" ]; then
    cargo build --bin ringfs --example exercise
    RINGFS=$target/debug/ringfs
    EXERCISE=$target/debug/examples/exercise
fi
mkdir -p "$target/kernels"
"$here/fetch.sh" "$target/kernels"

work=$(mktemp -d "${TMPDIR:-/tmp}/ringfs-kernels.XXXXXX")
pids=()
leave() {
    local code=$?
    trap - EXIT INT TERM
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -rf "$work"
    exit "$code"
}
trap leave EXIT INT TERM

# The part all kernels share: busybox, the two programs without their debug information, the libraries they name.
mkdir -p "$work/tree"/{bin,proc,sys,dev,tmp,mnt,etc}
cp "$busybox" "$work/tree/bin/busybox"
cp "$here/init" "$work/tree/init"
chmod 755 "$work/tree/init"
printf 'root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n' >"$work/tree/etc/passwd"
for program in "$RINGFS" "$EXERCISE"; do
    copy=$work/tree/bin/$(basename "$program")
    cp "$program" "$copy"
    strip "$copy" 2>/dev/null || true
    { ldd "$program" || true; } | grep -o '/[^ ]*' | sort -u | while read -r library; do
        mkdir -p "$work/tree$(dirname "$library")"
        cp -L "$library" "$work/tree$library"
    done
done

# boot KERNEL: runs it to its end, or to the end of patience; the console and how long it took are left in $work.
boot() {
    local kernel=$1 files=$target/kernels/$1 tree=$work/tree-$1 start=$SECONDS
    cp -a "$work/tree" "$tree"
    [ -e "$files/modules/fuse.ko" ] && cp "$files/modules/fuse.ko" "$tree/fuse.ko"
    (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$work/$kernel.gz"
    # Each of the three has io_uring and no FUSE over it: the best it offers is `ring`. exec: the number of this
    # shell becomes the time-out's, which ends the emulator when it is ended itself.
    echo "$start" >"$work/start-$kernel"
    exec timeout "$seconds_max" qemu-system-x86_64 -accel tcg -cpu max -m 1024 -smp 2 -nographic -no-reboot \
        -kernel "$files/vmlinuz" -initrd "$work/$kernel.gz" \
        -append "console=ttyS0 panic=-1 quiet expect=ring offered=ring,blocking" >"$work/console-$kernel" 2>&1 </dev/null
}

# All at once: each waits for itself more than for a processor.
for kernel in "${series[@]}"; do
    boot "$kernel" &
    pids+=($!)
done

all=0
for number in "${!series[@]}"; do
    kernel=${series[number]}
    status=0
    wait "${pids[number]}" || status=$?
    took=$((SECONDS - $(cat "$work/start-$kernel")))
    [ $status != 124 ] || echo "FAIL kernel $kernel: no end after $seconds_max s"
    [ $status = 0 ] || status=1
    text=$work/console-$kernel.text
    tr -d '\r' <"$work/console-$kernel" >"$text"
    if [ -n "${VERBOSE:-}" ]; then cat "$text"; else grep -aE '^(FAIL|SKIP|kernel |[a-z]+: exercise)|^ringfs:' "$text" || true; fi
    result=$(grep -a '^RESULT' "$text" || true)
    if [ -z "$result" ]; then
        echo "FAIL kernel $kernel: it ended without a result; the console's last lines:"
        tail -n 30 "$text"
        status=1
    elif ! grep -qaE '^RESULT .*: [1-9][0-9]* passed, 0 failed' <<<"$result"; then
        status=1
    fi
    if grep -a '^FAIL' "$text" >/dev/null; then status=1; fi
    echo "${result:-RESULT kernel $kernel: none}, in $took s at most"
    all=$((all + status))
done
echo "kernels: $((${#series[@]} - all)) passed, $all failed, 0 skipped"
[ $all = 0 ]
