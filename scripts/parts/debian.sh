#!/usr/bin/env bash
# What comes from Debian: Postgres and the tools that tests use. As root it is installed; else the one line is printed.
# Debian's own cluster is neither made nor started. As root the system users of the roles are made, too.
set -euo pipefail
. "$(dirname "$0")/env.sh"

. "$(dirname "$0")/packages.sh"

has_pgbouncer() { [ -n "${SUPAFLY_PGBOUNCER:-}" ] || PATH=$PATH:/usr/sbin command -v pgbouncer; }
has_postgres() { compgen -G '/usr/lib/postgresql/*/bin/postgres'; }
has_nft() { PATH=$PATH:/usr/sbin:/sbin command -v nft; }
has_ip() { PATH=$PATH:/usr/sbin:/sbin command -v ip; }
need postgresql has_postgres
need cmake command -v cmake
need gcc command -v cc
need util-linux command -v setpriv
need procps command -v ps
need tini command -v tini
need pgbouncer has_pgbouncer
need nftables has_nft
need iproute2 has_ip

no_cluster() {
  # Before the package is there, its preset keeps it from making and starting a cluster of its own.
  [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ] || return 0
  mkdir -p /etc/postgresql-common
  echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
}

make_users() {
  [ "$(id -u)" = 0 ] || return 0
  for user in supafly supafly-web supafly-rest supafly-pool; do
    getent passwd "$user" >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
  done
}

all() { no_cluster; install_packages pgbouncer; make_users; }
locked debian all
