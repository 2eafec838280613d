#!/usr/bin/env bash
# Random operations on one file against a copy in memory: fsx with every operation it knows, mapped ones, holes and copies
# among them; each seed once through the ordinary path and once with O_DIRECT, both at a time on one mount.
#   FSX_SECONDS=60 FSX_SEEDS="1 2 3 4 5 6 7 8"   TRANSPORTS="uring"
source "$(dirname "$0")/lib.sh"
program=$(tool fsx 0.3.2)
seconds=${FSX_SECONDS:-60}
seeds=${FSX_SEEDS:-1 2 3 4 5 6 7 8}
cc -shared -fPIC -o "$work/o_direct.so" "$here/o_direct.c" -ldl
config=$here/fsx.toml

# one NAME FILE SEED [VARIABLE=...]: runs fsx until the time is over; leaves its log and its status.
one() {
    local name=$1 file=$2 seed=$3 status=0
    shift 3
    env "$@" timeout -k 30 "$seconds" "$program" -v -f "$config" -S "$seed" -P "$work" "$file" >"$work/$name.log" 2>&1 || status=$?
    echo $status >"$work/$name.status"
}
report() {
    local name=$1 status operations
    status=$(cat "$work/$name.status")
    operations=$(grep -oE '^\[INFO +fsx\] +[0-9]+' "$work/$name.log" | tail -n 1 | grep -oE '[0-9]+$' || echo 0)
    # fsx has no end of its own: the time-out is the good end, any other one is a mismatch or an error.
    if [ "$status" = 124 ] && [ "$operations" -gt 50 ]; then pass "$name: $operations operations in $seconds s"; else
        fail "$name: status $status after $operations operations"
        tail -n 30 "$work/$name.log" | sed 's/^/    /'
    fi
    rm -f "$work/$name.log"
}

for transport in $(offered); do
    dir=$work/$transport
    mount_ringfs "$work/store-$transport" "$dir" --transport "$transport"
    for seed in $seeds; do
        one "$transport-$seed-buffered" "$dir/b$seed" "$seed" &
        first=$!
        one "$transport-$seed-direct" "$dir/d$seed" "$seed" LD_PRELOAD="$work/o_direct.so" O_DIRECT_FILE="$dir/d$seed" &
        wait $first $!
        report "$transport-$seed-buffered"
        report "$transport-$seed-direct"
    done
    check "$transport-umount" umount_ringfs "$dir"
    check "$transport-fsck" "$RINGFS" fsck "$work/store-$transport" --data
done
finish
