#!/usr/bin/env bash
# `make dev`: the real thing in the foreground on an embedded default. State of its own, archive in file://, no cloud.
#
# As root the state and a copy of the binary lie outside the checkout in a 0755 directory, because Postgres's user
# cannot look below a 0700 home. As an ordinary user everything is in .dev/ and runs as that one user.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/parts/env.sh

if [ "$(id -u)" = 0 ]; then
  home=${SUPAFLY_DEV_HOME:-/var/lib/supafly-dev/$(printf %s "$PWD" | cksum | cut -d' ' -f1)}
else
  home=${SUPAFLY_DEV_HOME:-$PWD/.dev}
fi
if [ "${1:-}" = --clean ]; then
  rm -rf -- "$home"
  say "removed $home"
  exit
fi

scripts/parts/check.sh
scripts/parts/debian.sh
cargo build --locked --quiet
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$home"
chmod 0755 "$home"
if ! cmp -s "$target/debug/supafly" "$home/supafly"; then
  install -m 0755 "$target/debug/supafly" "$home/supafly.new"
  mv -f "$home/supafly.new" "$home/supafly"
fi
rm -rf "$home/services"
cp -R services "$home/services"
chmod -R u=rwX,go=rX "$home/services"

# The port is chosen once and kept, so that what a client was told stays true.
port_file=$home/port
free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
if [ ! -s "$port_file" ]; then
  port=54322
  until free "$port"; do port=$((port + 1)); done
  [ "$port" = 54322 ] || say "port 54322 is taken; this database gets $port and keeps it"
  echo "$port" > "$port_file"
fi
port=$(cat "$port_file")
free "$port" || die "port $port is in use: is another \`make dev\` running? (or write another number to $port_file)"

# The engine takes minutes to build; nothing waits for it, and keeper takes the first backup when it is there.
if [ -z "${SUPAFLY_WALG:-}" ]; then
  SUPAFLY_WALG=$(command -v wal-g || echo "$home/walrus")
  export SUPAFLY_WALG
fi
if [ "$SUPAFLY_WALG" = "$home/walrus" ] && [ ! -x "$home/walrus" ]; then
  say "building the backup engine (wal-rus) in the background; UNPROTECTED until the first backup is verified"
  ( (
    if nice scripts/parts/walrus.sh >"$home/walrus.log" 2>&1; then
      install -m 0755 "$SUPAFLY_CACHE/bin/walrus" "$home/walrus.new" && mv -f "$home/walrus.new" "$home/walrus"
    else
      say "the backup engine could not be built, see $home/walrus.log"
    fi
  ) & )
fi

export SUPAFLY_SERVICES=$home/services SUPAFLY_DATA=$home/data SUPAFLY_RUN=$home/run SUPAFLY_PG_PORT=$port
export SUPAFLY_STORE=${SUPAFLY_STORE:-file://$home/store} SUPAFLY_TAKEOVER=${SUPAFLY_TAKEOVER:-auto}
export SUPAFLY_AUTO_EXPOSE=${SUPAFLY_AUTO_EXPOSE:-on}
export SUPAFLY_PG_LISTEN=${SUPAFLY_PG_LISTEN:-127.0.0.1} SUPAFLY_LOG_FORMAT=${SUPAFLY_LOG_FORMAT:-text}
# Whichever ports are free: `status` and the message below say which, so that two of these never fight.
export SUPAFLY_WEB_LISTEN=${SUPAFLY_WEB_LISTEN:-127.0.0.1:0} SUPAFLY_WEB_PRIVATE=${SUPAFLY_WEB_PRIVATE:-127.0.0.1:0}
say "data $SUPAFLY_DATA · archive $SUPAFLY_STORE · port $port · logs follow, Ctrl-C stops"

# Told when ready by a process that is not ours to supervise: twice forked, it ends with the first answer or with us.
us=$$
( (
  until "$home/supafly" health --ready >/dev/null 2>&1; do
    kill -0 "$us" 2>/dev/null || exit 0
    sleep 0.1
  done
  address() { "$home/supafly" status --json | sed -n "s/.*\"$1_address\": \"\(.*\)\".*/\1/p"; }
  printf '\nsupafly: ready\n  psql    psql -h %s -p %s -U postgres\n  page    http://%s/ (health: http://%s/health/ready)\n  status  SUPAFLY_RUN=%s %s status\n\n' \
    "$SUPAFLY_RUN/postgres" "$port" "$(address private)" "$(address health)" "$SUPAFLY_RUN" "$home/supafly" >&2
) & )
exec "$home/supafly" run
