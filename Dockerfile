# syntax=docker/dockerfile:1
# The service's image. `--target debug` has the same program with its symbols, and tools to look into it.

# The toolchain is rust-toolchain.toml's; that file stays outside, or rustup would fetch clippy and rustfmt.
FROM rust:1.95-slim-trixie AS rust
# Writes the list of crates into the program, where scanners find it.
RUN --mount=type=cache,id=plinth-registry,target=/usr/local/cargo/registry \
    cargo install --locked cargo-auditable@0.7.7

FROM rust AS build
WORKDIR /build
COPY . .
# release, or fast: links in a fraction of the time.
ARG PROFILE=release
ARG VERSION=dev
ARG GIT_COMMIT=unknown
# One build, with symbols; the image gets it without. Cargo goes by times of files, which say nothing in a target
# folder that several checkouts share: so our own crates are always built.
RUN --mount=type=cache,id=plinth-registry,target=/usr/local/cargo/registry \
    --mount=type=cache,id=plinth-target,target=/build/target,sharing=locked \
    find src crates -name '*.rs' -exec touch {} + \
    && CARGO_PROFILE_RELEASE_DEBUG=line-tables-only CARGO_PROFILE_RELEASE_STRIP=none \
       cargo auditable build --locked --profile "$PROFILE" --package plinth --bin plinth \
    && mkdir /out \
    && cp "target/$PROFILE/plinth" /out/plinth.symbols \
    && objcopy --strip-all /out/plinth.symbols /out/plinth

FROM debian:trixie-slim AS debug
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       ca-certificates curl gdb htop iproute2 linux-perf netstat-nat procps strace tcpdump valgrind \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/plinth.symbols /plinth
USER 1001:1001
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 CMD ["/plinth", "healthcheck"]
ENTRYPOINT ["/plinth"]

FROM gcr.io/distroless/cc-debian13:nonroot AS base

# What the program stands on: Debian's C library, certificates and time zones. The base has OpenSSL and the libraries of
# C++ and OpenMP too, which nothing here uses: they go, and their entries in the list of packages that scanners read. So do
# the C library's tables of character sets, which only `iconv` reads.
FROM rust AS root
WORKDIR /slim
COPY --from=base / ./
RUN set -- libgomp1 libssl3t64 libstdc++6 libzstd1 zlib1g \
    && dpkg --listfiles "$@" >/tmp/files \
    && while read -r file; do [ -d ".$file" ] && [ ! -L ".$file" ] || rm -f ".$file"; done </tmp/files \
    && printf 'Package: %s\n' "$@" >/tmp/packages \
    && grep -lxFf /tmp/packages var/lib/dpkg/status.d/* >/tmp/entries \
    && while read -r entry; do rm -f "$entry" "$entry.md5sums"; done </tmp/entries \
    && rm -rf usr/lib/*-linux-gnu/gconv

FROM scratch
COPY --from=root /slim/ /
# What the base sets.
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/plinth /plinth
WORKDIR /
USER 1001:1001
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=3s --start-period=5s --start-interval=1s --retries=3 CMD ["/plinth", "healthcheck"]
ENTRYPOINT ["/plinth"]
ARG VERSION=dev
ARG GIT_COMMIT=unknown
ARG BUILD_DATE=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="plinth" \
      org.opencontainers.image.description="A production service tier: HTTP over Postgres with a tiered cache" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$GIT_COMMIT" \
      org.opencontainers.image.created="$BUILD_DATE"
