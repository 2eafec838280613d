#!/bin/sh
# make run: from a bare Debian 12 with cargo to a mount that has worked, with a report.
#   KEEP=1   leave the mount behind
#   FILES=N  files of the workload (default 5000)     THREADS=N  threads (default 4)
set -eu
cd "$(dirname "$0")/.."
say() { printf '\n== %s\n' "$*"; }

root=no
[ "$(id -u)" = 0 ] && root=yes
command -v cargo >/dev/null || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; }

# What builds and mounts need: a C compiler (the crate ring), and fusermount3 for mounts of ordinary users.
missing=
command -v cc >/dev/null || missing="$missing build-essential"
command -v fusermount3 >/dev/null || missing="$missing fuse3"
if [ -n "$missing" ]; then
    if [ $root = yes ] && command -v apt-get >/dev/null; then
        say "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        . scripts/retry.sh
        retry apt-get update -q
        retry apt-get install -y -q --no-install-recommends $missing
    else
        echo "make run: missing:$missing; install them, or run as root on Debian" >&2
        exit 1
    fi
fi
command -v cargo >/dev/null || { echo "make run: no cargo; install it with rustup" >&2; exit 1; }

say "building"
cargo build --release
ringfs=${CARGO_TARGET_DIR:-target}/release/ringfs

if [ $root = yes ]; then
    [ -e /dev/fuse ] || modprobe fuse || true
    parameter=/sys/module/fuse/parameters/enable_uring
    if [ -w $parameter ] && [ "$(cat $parameter)" != Y ]; then
        say "switching FUSE over io_uring on ($parameter)"
        echo Y >$parameter
    fi
fi

say "what this host offers"
"$ringfs" doctor || { echo "make run: mend what FAILs above" >&2; exit 1; }

base=$(mktemp -d "${TMPDIR:-/tmp}/ringfs-run.XXXXXX")
mkdir "$base/mnt"
leave() {
    code=$?
    trap - EXIT INT TERM
    if [ $code != 0 ] || [ "${KEEP:-0}" != 1 ]; then
        "$ringfs" umount "$base/mnt" 2>/dev/null || "$ringfs" umount --force "$base/mnt" 2>/dev/null || true
        rm -rf "$base"
    fi
    exit $code
}
trap leave EXIT INT TERM

say "mounting: ringfs mount $base/store $base/mnt"
"$ringfs" mount "$base/store" "$base/mnt" --log "$base/log"
df -h "$base/mnt"

say "small files: ringfs bench (${FILES:-5000} files of 4 KiB, ${THREADS:-4} threads)"
"$ringfs" bench "$base/mnt" --files "${FILES:-5000}" --threads "${THREADS:-4}"

say "an ordinary program: this source tree through tar, compared byte by byte"
mkdir "$base/mnt/tree"
tar -cf - --exclude=./target --exclude=./.git . | tar -xf - -C "$base/mnt/tree"
diff -r --no-dereference -x target -x .git . "$base/mnt/tree"
find "$base/mnt/tree" -type f | wc -l | xargs printf '%s files are the same\n'
rm -rf "$base/mnt/tree"

say "ringfs status"
"$ringfs" status "$base/mnt"

if [ "${KEEP:-0}" = 1 ]; then
    say "left mounted: $base/mnt; end it with: $ringfs umount $base/mnt && rm -r $base"
else
    say "unmounting and checking the store"
    "$ringfs" umount "$base/mnt"
    "$ringfs" fsck --data "$base/store"
fi
cat <<END

Go on with
  $ringfs mount STORE DIR                           a store on this host, mounted
  $ringfs serve STORE --listen unix:/run/ringfs.sock   a store for several mounts
  $ringfs mount unix:/run/ringfs.sock DIR
  $ringfs help
END
