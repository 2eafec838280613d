#!/usr/bin/env bash
# Real programs on one mount of each transport: tar, git, rsync, SQLite, rm, and cargo when asked.
#   FILES=3200       files of the source tree on the first transport; a quarter of them on the others
#   ROWS=100         rows of each of SQLite's four writers
#   WITH_CARGO=1     also build this project with its target folder on the mount (minutes)
source "$(dirname "$0")/lib.sh"
files=${FILES:-3200}
rows=${ROWS:-100}
for program in git rsync python3 tar; do
    command -v $program >/dev/null || { echo "$what: missing $program" >&2; exit 1; }
done
python3 -c 'import sqlite3' || { echo "$what: python3 has no sqlite3 module" >&2; exit 1; }
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@example.org
export GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@example.org GIT_TERMINAL_PROMPT=0

# The material, made off the mount: material NAME COUNT makes a tree, an archive of it and a repository with two commits.
material() {
    local at=$work/$1
    mkdir "$at"
    python3 "$here/tree.py" "$at/tree" "$2"
    tar -C "$at" -cf "$at/tree.tar" tree
    git init -q -b main "$at/origin"
    cp -a "$at/tree/." "$at/origin/"
    git -C "$at/origin" add -A
    git -C "$at/origin" commit -q -m first
    find "$at/origin" -name '*_1*.txt' -not -path '*/.git/*' | while read -r path; do echo changed >>"$path"; done
    git -C "$at/origin" commit -q -a -m second
}

sums() { (cd "$1" && find . -path ./.git -prune -o -type f -print0 | sort -z | xargs -0 sha256sum); }
same_tree() { # contents, then modes, times to the second, link targets
    cmp <(sums "$1") <(sums "$2")
    cmp <(cd "$1" && find . -printf '%P %M %l %Ts\n' | sort) <(cd "$2" && find . -printf '%P %M %l %Ts\n' | sort)
}
untar() { tar -C "$dir" -xf "$from/tree.tar" && same_tree "$from/tree" "$dir/tree"; }
tar_again() { tar -C "$dir" -cf "$dir/again.tar" tree && mkdir "$dir/again" && tar -C "$dir/again" -xf "$dir/again.tar" && same_tree "$dir/tree" "$dir/again/tree"; }
clone() { git clone -q "file://$from/origin" "$dir/clone" && [ "$(git -C "$dir/clone" ls-files | wc -l)" -ge "$count" ]; }
status_is_clean() { [ -z "$(git -C "$dir/clone" status --porcelain)" ]; }
work_in_git() {
    git -C "$dir/clone" checkout -q -b other HEAD~1 && status_is_clean || return 1

    echo more >"$dir/clone/added.txt"
    git -C "$dir/clone" add added.txt && git -C "$dir/clone" commit -q -m third &&
        git -C "$dir/clone" merge -q -m merged main && git -C "$dir/clone" stash list && status_is_clean
}
gc() { git -C "$dir/clone" gc -q --prune=now && status_is_clean; }
git_fsck() { git -C "$dir/clone" fsck --full --strict; }
rsync_first() { rsync -a "$from/tree/" "$dir/rsync/" && same_tree "$from/tree" "$dir/rsync"; }
rsync_second() {
    rsync -a --itemize-changes --stats "$from/tree/" "$dir/rsync/" >"$work/rsync.out"
    cat "$work/rsync.out"
    grep -q 'Number of regular files transferred: 0$' "$work/rsync.out" && ! grep -qE '^[<>ch.*][fdLDS]' "$work/rsync.out"
}
sqlite() { python3 "$here/sqlite.py" "$dir/$1.db" "$1" "$rows"; }
remove_all() { rm -rf "$dir"/* && [ -z "$(ls -A "$dir")" ]; }
build_this() { (cd "$root" && CARGO_TARGET_DIR=$dir/target cargo build --quiet && "$dir/target/debug/ringfs" --version); }

material first "$files"
material other $((files / 4))
from=$work/first
count=$files
for transport in $(offered); do
    dir=$work/$transport
    mount_ringfs "$work/store-$transport" "$dir" --transport "$transport"
    for step in untar tar_again clone status_is_clean work_in_git gc git_fsck rsync_first rsync_second; do
        check "$transport $step" $step
    done
    check "$transport sqlite with a write-ahead log, 4 writers" sqlite wal
    check "$transport sqlite with a rollback journal, 4 writers" sqlite delete
    if [ -n "${WITH_CARGO:-}" ]; then check "$transport cargo build" build_this; fi
    # What the programs left must be there after a remount too.
    sums "$dir/clone" >"$work/before"
    check "$transport unmount" umount_ringfs "$dir"
    check "$transport fsck" "$RINGFS" fsck "$work/store-$transport" --data
    mount_ringfs "$work/store-$transport" "$dir" --transport "$transport"
    check "$transport remount has the same bytes" cmp "$work/before" <(sums "$dir/clone")
    check "$transport rm -rf" remove_all
    check "$transport unmount, empty" umount_ringfs "$dir"
    check "$transport fsck, empty" "$RINGFS" fsck "$work/store-$transport"
    from=$work/other
    count=$((files / 4))
done
finish
