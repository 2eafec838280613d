#!/bin/sh
# make install [PREFIX=/usr]: the program, the link that lets mount(8) find it, and the systemd units.
set -eu
cd "$(dirname "$0")/.."
prefix=${DESTDIR:-}${PREFIX:-/usr}
install -D -m 755 "${CARGO_TARGET_DIR:-target}/release/ringfs" "$prefix/bin/ringfs"
mkdir -p "${DESTDIR:-}/sbin" "$prefix/lib/systemd/system"
ln -sf "${PREFIX:-/usr}/bin/ringfs" "${DESTDIR:-}/sbin/mount.ringfs"
ln -sf "${PREFIX:-/usr}/bin/ringfs" "${DESTDIR:-}/sbin/mount.fuse.ringfs"
install -m 644 dist/*.service "$prefix/lib/systemd/system/"
