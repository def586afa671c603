# The Tidings image: only a static binary, CA certificates and time zones. Build it with
# "make image", or directly with docker, buildah or podman.
ARG BUILD_IMAGE=golang:1.26-bookworm

FROM --platform=$BUILDPLATFORM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
ARG COMMIT=unknown
RUN --mount=type=cache,target=/root/.cache/go-build \
    make binary GOOS=${TARGETOS} GOARCH=${TARGETARCH} VERSION=${VERSION} COMMIT=${COMMIT} OUT=/image/tidings && \
    make sbom BINARY=/image/tidings VERSION=${VERSION} OUT=/image/sbom.cdx.json && \
    mkdir -p /image/etc/ssl/certs /image/usr/share /data && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ && \
    cp "$(go env GOROOT)/lib/time/zoneinfo.zip" /image/usr/share/ && \
    echo 'tidings:x:65532:65532::/var/lib/tidings:/sbin/nologin' > /image/etc/passwd && \
    mkdir -m 1777 /image/tmp

FROM scratch
ARG VERSION=dev
ARG COMMIT=unknown
LABEL org.opencontainers.image.title="Tidings" \
      org.opencontainers.image.description="Notifies other systems by signed webhook whenever a resource of an AI-agent platform changes" \
      org.opencontainers.image.source="https://github.com/tidings-dev/tidings" \
      org.opencontainers.image.documentation="https://github.com/tidings-dev/tidings#readme" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${COMMIT}"
COPY --from=build /image/ /
COPY --from=build --chown=65532:65532 /data /var/lib/tidings
ENV ZONEINFO=/usr/share/zoneinfo.zip
USER 65532:65532
EXPOSE 8333
VOLUME /var/lib/tidings
ENTRYPOINT ["/tidings"]
CMD ["serve", "--listen=:8333", "--data-dir=/var/lib/tidings"]
