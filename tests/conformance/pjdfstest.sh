#!/usr/bin/env bash
# POSIX rules: pjdfstest as root on a mount of each transport, and on ext4 in the same run. Goes out: a table, and a FAIL
# for every test that fails or is skipped on ringfs but not on ext4. Two passes: the tests that remount their file system
# read-only need a process of their own, since the others leave unlinked files open.
# mount(8) finds a mount helper only in the system's folders: a name space of our own gets one without touching them.
[ "${1:-}" = --inside ] || exec unshare --mount --propagation private "$0" --inside
source "$(dirname "$0")/lib.sh"
need_root
mount -t tmpfs tools /usr/local/sbin
ln -s "$(realpath "$RINGFS")" /usr/local/sbin/ringfs
program=$(tool pjdfstest 0.2.2)

# Two users every Debian has.
write_config() {
    cat <<TOML
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = $1
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
TOML
}
write_config false >"$work/plain.toml"
write_config true >"$work/remount.toml"
mkdir "$work/second"
mount -t tmpfs second "$work/second"
plain_mounts+=("$work/second")

# judge NAME DIR: runs both passes, leaves NAME.passed, NAME.failed, NAME.skipped (names of tests).
judge() {
    local name=$1 dir=$2 log=$work/$1.txt
    mkdir -p "$dir/p" && chmod 755 "$dir/p"
    # On ringfs the C library does not know how many links a file may have: tell it.
    local preload=()
    [ "$name" = ext4 ] || preload=(env LD_PRELOAD="$work/link_max.so" LINK_MAX="$links_max")
    timeout -k 30 900 "${preload[@]}" "$program" -c "$work/plain.toml" -p "$dir/p" -s "$work/second" >"$log" 2>&1 || true
    timeout -k 30 300 "$program" -c "$work/remount.toml" -p "$dir/p" -s "$work/second" erofs >"$log.2" 2>&1 || true
    # The first pass skips what the second runs.
    awk 'NF == 2 && $2 ~ /^(ok|FAILED|skipped)$/ && $1 !~ /erofs/' "$log" >"$work/$name.lines"
    awk 'NF == 2 && $2 ~ /^(ok|FAILED|skipped)$/' "$log.2" >>"$work/$name.lines"
    awk '$2 == "ok" { print $1 }' "$work/$name.lines" | sort >"$work/$name.passed"
    awk '$2 == "FAILED" { print $1 }' "$work/$name.lines" | sort >"$work/$name.failed"
    awk '$2 == "skipped" { print $1 }' "$work/$name.lines" | sort >"$work/$name.skipped"
    table+=("$(printf '%-10s %7s %7s %7s' "$name" "$(wc -l <"$work/$name.passed")" "$(wc -l <"$work/$name.failed")" "$(wc -l <"$work/$name.skipped")")")
}

cc -shared -fPIC -o "$work/link_max.so" "$here/link_max.c" -ldl
links_max=$(sed -n 's/^pub const LINKS_MAX: u32 = \([0-9_]*\);.*/\1/p' "$root/src/base/limits.rs" | tr -d _)
[ -n "$links_max" ] || { echo "$what: no LINKS_MAX in src/base/limits.rs" >&2; exit 1; }
reason() { grep -h -A1 "^$2 .*skipped" "$work/$1.txt" "$work/$1.txt.2" | sed -n 's/^\t//p' | head -n 1; }

table=("$(printf '%-10s %7s %7s %7s' on passed failed skipped)")
truncate -s 512M "$work/ext4.img"
mkfs.ext4 -q -F "$work/ext4.img"
mkdir "$work/ext4"
mount -o loop "$work/ext4.img" "$work/ext4"
plain_mounts+=("$work/ext4")
judge ext4 "$work/ext4"
[ "$(wc -l <"$work/ext4.passed")" -gt 300 ] || { cat "$work/ext4.txt"; fail "ext4 itself passes too few tests"; }

for transport in $(offered); do
    mount_ringfs "$work/store-$transport" "$work/$transport" --transport "$transport"
    status_has "$work/$transport" "\"in_use\":\"$transport\"" || fail "$transport is not what the mount uses"
    judge "$transport" "$work/$transport"
    comm -23 "$work/$transport.failed" "$work/ext4.failed" >"$work/new"
    while read -r test; do
        fail "$transport $test"
        grep -h -A2 "^$test .*FAILED" "$work/$transport.txt" "$work/$transport.txt.2" | sed -n 's/^\t/    /p' | head -n 3
    done <"$work/new"
    comm -23 "$work/$transport.skipped" "$work/ext4.skipped" >"$work/new"
    while read -r test; do fail "$transport $test is skipped"; done <"$work/new"
    # A test that vanished would otherwise look like success.
    while read -r test; do fail "$transport $test did not run"; done < <(
        comm -23 "$work/ext4.passed" <(sort "$work/$transport".{passed,failed,skipped}))
    passed=$((passed + $(wc -l <"$work/$transport.passed")))
    while read -r test; do skip "$transport $test: $(reason "$transport" "$test")"; done <"$work/$transport.skipped"
    check "$transport unmounts" umount_ringfs "$work/$transport"
    check "$transport leaves a clean store" "$RINGFS" fsck "$work/store-$transport"
done
printf '%s\n' "${table[@]}"
finish
