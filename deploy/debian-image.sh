#!/usr/bin/env bash
# Builds localhost/tidings-debian from Debian packages, without a registry: a system with
# systemd and Python, which is also the base of the build image.
set -euo pipefail
image=localhost/tidings-debian packages=ca-certificates,dbus,make,procps,python3,systemd-sysv
label='{{index .OCIv1.Config.Labels "packages"}}'
if [ "$(buildah inspect --type image --format "$label" $image 2>/dev/null)" = $packages ]; then exit 0; fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=$packages bookworm "$root" >/dev/null
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
container=$(buildah from scratch)
buildah copy -q "$container" "$root" /
buildah config --label packages=$packages "$container"
buildah commit -q --rm "$container" $image
