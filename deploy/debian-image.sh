#!/usr/bin/env bash
# debian-image.sh IMAGE PACKAGES: makes an image of Debian from its packages, where no
# registry can be reached. Packages are separated by commas.
set -euo pipefail
image=$1 packages=$2
label='{{index .OCIv1.Config.Labels "packages"}}'
if [ "$(buildah inspect --type image --format "$label" "$image" 2>/dev/null)" = "$packages" ]; then exit 0; fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include="$packages" bookworm "$root" >/dev/null
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
container=$(buildah from scratch)
buildah copy -q "$container" "$root" /
buildah config --label packages="$packages" "$container"
buildah commit -q --rm "$container" "$image"
