#!/usr/bin/env bash
# Builds localhost/tidings-build, a substitute for golang:1.26-bookworm that needs no
# registry: Debian with this machine's Go. The machine's module and build caches are mounted
# under /go.
set -euo pipefail
image=localhost/tidings-build
version=$(go env GOVERSION)
label='{{index .OCIv1.Config.Labels "go"}}'
if [ "$(buildah inspect --type image --format "$label" $image 2>/dev/null)" = "$version" ]; then exit 0; fi
container=$(buildah from --pull-never localhost/tidings-debian)
buildah copy -q "$container" "$(go env GOROOT)" /usr/local/go
buildah config --label go="$version" --env PATH=/usr/local/go/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	--env GOPATH=/go --env GOCACHE=/go/cache --env GOTOOLCHAIN=local "$container"
buildah commit -q --rm "$container" $image
