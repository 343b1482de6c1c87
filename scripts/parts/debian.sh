#!/usr/bin/env bash
# What comes from Debian: Postgres and the tools that tests use. As root it is installed; else the one line is printed.
# Debian's own cluster is neither made nor started. As root the system users of the roles are made, too.
set -euo pipefail
. "$(dirname "$0")/env.sh"

packages=()
need() { # need PACKAGE TEST…: add PACKAGE when the test fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || packages+=("$package")
}
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

install_packages() {
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    say "these packages lack; install them and come back:"
    echo "  sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 3
  fi
  say "installing ${packages[*]}"
  # Before the package is there, its preset keeps it from making and starting a cluster of its own.
  if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
    mkdir -p /etc/postgresql-common
    echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
  fi
  # Packages start their services (PgBouncer's is one) unless this says no. It must not stay, however we end: `locked`
  # gave us a shell of our own.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    trap "rm -f '$policy'" EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 0755 "$policy"
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${packages[@]}" >/dev/null
  # Nor at the next boot of the host: ours is run by the supervisor alone.
  case " ${packages[*]} " in
  *" pgbouncer "*)
    if command -v systemctl >/dev/null; then systemctl disable --quiet pgbouncer 2>/dev/null || :
    elif command -v update-rc.d >/dev/null; then update-rc.d pgbouncer disable >/dev/null 2>&1 || :; fi
    ;;
  esac
}

make_users() {
  [ "$(id -u)" = 0 ] || return 0
  for user in supafly supafly-web supafly-rest supafly-pool; do
    getent passwd "$user" >/dev/null || useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
  done
}

both() { install_packages; make_users; }
locked debian both
