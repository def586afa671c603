#!/usr/bin/env bash
# Makes localhost/tidings-debian, from Debian's packages, where no registry can be
# reached: a machine with systemd, and what the build image begins with.
set -euo pipefail
image=localhost/tidings-debian packages=ca-certificates,dbus,make,procps,systemd-sysv
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
