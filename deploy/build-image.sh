#!/usr/bin/env bash
# Makes localhost/tidings-build, which stands in for golang:1.26-bookworm where no
# registry can be reached: Debian from its packages, and this machine's Go.
set -euo pipefail
image=localhost/tidings-build
if buildah inspect --type image $image >/dev/null 2>&1; then exit 0; fi
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=ca-certificates,make bookworm "$root" >/dev/null
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
container=$(buildah from scratch)
buildah copy -q "$container" "$root" /
buildah copy -q "$container" "$(go env GOROOT)" /usr/local/go
buildah config --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin --env GOPATH=/go --env GOTOOLCHAIN=local "$container"
buildah commit -q --rm "$container" $image
