#!/usr/bin/env bash
# Makes localhost/tidings-build, which stands in for golang:1.26-bookworm where no
# registry can be reached: Debian from its packages, and this machine's Go.
set -euo pipefail
image=localhost/tidings-build
version=$(go env GOVERSION)
if [ "$(buildah inspect --type image --format '{{index .OCIv1.Config.Labels "go"}}' $image 2>/dev/null)" = "$version" ]; then exit 0; fi
"$(dirname "$0")"/debian-image.sh localhost/tidings-debian ca-certificates,make
container=$(buildah from --pull-never localhost/tidings-debian)
buildah copy -q "$container" "$(go env GOROOT)" /usr/local/go
buildah config --label go="$version" --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	--env GOPATH=/go --env GOTOOLCHAIN=local "$container"
buildah commit -q --rm "$container" $image
