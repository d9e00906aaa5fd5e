# Copyright The aegis-oci Authors
# SPDX-License-Identifier: Apache-2.0
#
# An image with nothing in it but the static program and the roots of public
# certificate authorities: no shell, no package manager, no home.
#
#   docker build -t aegis-oci .
#
# Where nothing can be pulled, the first stage is replaced by a directory that
# holds its result, out/aegis-oci and out/ca-certificates.crt:
#
#   buildah build --build-context build=DIR -t aegis-oci .

ARG GO_IMAGE=golang:1.26

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY . .
ARG VERSION=0.0.0-dev
RUN mkdir -p /out && cp /etc/ssl/certs/ca-certificates.crt /out/ && \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X github.com/aegis-oci/aegis-oci/cmd/aegis-oci/internal/cli.buildVersion=${VERSION}" \
    -o /out/aegis-oci ./cmd/aegis-oci

FROM scratch
ARG VERSION=0.0.0-dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="aegis-oci" \
      org.opencontainers.image.description="Signs models in OCI registries with Vault, and opens only what verifies" \
      org.opencontainers.image.source="https://github.com/aegis-oci/aegis-oci" \
      org.opencontainers.image.documentation="https://github.com/aegis-oci/aegis-oci/blob/main/docs/kubernetes.md" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/aegis-oci /aegis-oci
# By number, for runAsNonRoot cannot look a name up; the group too, or it is 0.
USER 65532:65532
ENTRYPOINT ["/aegis-oci"]
