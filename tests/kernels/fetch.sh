#!/usr/bin/env bash
# Puts three Debian kernels, unpacked, under DEST: the oldest that ringfs promises and two between it
# and the newest. Comes in: a folder. Goes out: DEST/<series>/{vmlinuz,version,modules/*.ko}.
# Nothing is installed on this machine: the packages are downloaded and unpacked beside the build.
# A series that is already there is left alone, so a second run needs no network.
set -euo pipefail

dest=${1:?usage: fetch.sh DEST}
source "$(dirname "$0")/../../scripts/retry.sh"
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
arch=$(dpkg --print-architecture)
[ "$arch" = amd64 ] || { echo "fetch.sh: only amd64 kernels are known here, this is $arch" >&2; exit 1; }

# The package lists of one suite, kept apart from the system's own.
apt_private() {
    local suite=$1 root=$2
    shift 2
    "$@" -o Dir::Etc::SourceList="$root/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State::Lists="$root/lists" -o APT::Sandbox::User=root -o Acquire::Retries=5 -o APT::Update::Error-Mode=any
}

# fetch_series SERIES PACKAGE_PATTERN SUITE URI...
fetch_series() {
    local series=$1 pattern=$2 suite=$3 uri=$4
    local out="$dest/$series"
    if [ -s "$out/version" ]; then
        echo "kernel $series: $(cat "$out/version") (already here)"
        return
    fi
    local root="$dest/.apt-$series"
    rm -rf "$root" "$out"
    mkdir -p "$root/lists/partial" "$root/unpacked" "$out/modules"
    echo "deb [signed-by=$keyring arch=amd64] $uri $suite main" >"$root/sources.list"
    retry apt_private "$suite" "$root" apt-get -qq update
    local package
    package=$(apt_private "$suite" "$root" apt-cache search --names-only "$pattern" | cut -d' ' -f1 | sort -V | tail -1)
    [ -n "$package" ] || { echo "fetch.sh: no package matches $pattern in $suite" >&2; exit 1; }
    download() { (cd "$root" && rm -f ./*.deb && apt_private "$suite" "$root" apt-get -qq download "$package"); }
    retry download
    dpkg -x "$root"/*.deb "$root/unpacked"
    local version
    version=$(basename "$root"/unpacked/boot/vmlinuz-* | sed 's/^vmlinuz-//')
    cp "$root/unpacked/boot/vmlinuz-$version" "$out/vmlinuz"
    local module
    module=$(find "$root/unpacked" -name 'fuse.ko*' | head -1)
    case $module in
        *.ko.xz) xz -dc "$module" >"$out/modules/fuse.ko" ;;
        *.ko) cp "$module" "$out/modules/fuse.ko" ;;
        *) # Newer cloud kernels have it built in.
            grep -q '^CONFIG_FUSE_FS=y' "$root/unpacked/boot/config-$version" ||
                { echo "fetch.sh: $package has no fuse" >&2; exit 1; } ;;
    esac
    rm -rf "$root"
    echo "$version" >"$out/version"
    echo "kernel $series: $version"
}

# The same mirrors that this host installs from.
site() { apt-get indextargets --format '$(RELEASE) $(SITE)' | awk -v release="$1" '$1 == release { print $2; exit }'; }
main=$(site bookworm)
security=$(site bookworm-security)
[ -n "$main" ] && [ -n "$security" ] ||
    { echo "fetch.sh: the package sources of this host name no bookworm and bookworm-security; apt-get update first" >&2; exit 1; }
fetch_series 5.10 '^linux-image-5\.10\.0-[0-9]+-cloud-amd64$' bullseye-security "$security"
fetch_series 6.1 '^linux-image-6\.1\.0-[0-9]+-cloud-amd64$' bookworm "$main"
fetch_series 6.12 '^linux-image-6\.12\.[0-9]+\+deb12-cloud-amd64$' bookworm-security "$security"
