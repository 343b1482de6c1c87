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

# A port is chosen once and kept, so that what a client was told stays true. 54321 is kept for the gateway to come.
free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
ours=" 54321 $(cat "$home"/port "$home"/port-* 2>/dev/null | tr '\n' ' ' || :) "
choose() { # choose WHAT DEFAULT FILE: leaves it in $chosen
  local file=$home/$3
  if [ -s "$file" ]; then
    chosen=$(cat "$file")
    [[ $chosen =~ ^[1-9][0-9]{0,4}$ ]] || die "$file: \`$chosen\` is no port ($1): write another, or remove the file"
    free "$chosen" || die "port $chosen ($1) is in use: is another \`make dev\` running? (or write another number to $file)"
  else
    chosen=$2
    until [[ $ours != *" $chosen "* ]] && free "$chosen"; do chosen=$((chosen + 1)); done
    [ "$chosen" = "$2" ] || say "port $2 is taken; $1 gets $chosen and keeps it"
    echo "$chosen" > "$file"
  fi
  ours+="$chosen "
}
choose database 54322 port && port=$chosen
choose "the pooler" 54329 port-pooler && pooler_port=$chosen
choose "the pooler's session mode" 54330 port-session && session_port=$chosen
choose PostgREST 54331 port-rest && rest_port=$chosen
choose "PostgREST's admin port" 54332 port-rest-admin && rest_admin_port=$chosen

# Its user cannot look below a 0700 home.
if [ -z "${SUPAFLY_POSTGREST:-}" ]; then
  SUPAFLY_POSTGREST=$(command -v postgrest || echo "$home/postgrest")
  if [ "$SUPAFLY_POSTGREST" = "$home/postgrest" ] && [ ! -x "$home/postgrest" ]; then
    if scripts/parts/postgrest.sh; then install -m 0755 "$SUPAFLY_CACHE/bin/postgrest" "$home/postgrest"
    else say "there is no PostgREST; everything else runs"; fi
  fi
  export SUPAFLY_POSTGREST
fi

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
export SUPAFLY_POOLER_PORT=$pooler_port SUPAFLY_POOLER_SESSION_PORT=$session_port
export SUPAFLY_POOLER_LISTEN=${SUPAFLY_POOLER_LISTEN:-127.0.0.1}
export SUPAFLY_POSTGREST_PORT=$rest_port SUPAFLY_POSTGREST_ADMIN_PORT=$rest_admin_port
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
  # Clients can be served by the database now; the pooler and PostgREST need a moment more, or never come.
  for _ in $(seq 100); do
    "$home/supafly" status --json | grep -qE '"state": "(waiting|starting)"' || break
    sleep 0.1
  done
  address() { "$home/supafly" status --json | sed -n "s/.*\"$1_address\": \"\(.*\)\".*/\1/p"; }
  {
    printf '\nsupafly: ready\n  psql    psql -h %s -p %s -U postgres\n' "$SUPAFLY_RUN/postgres" "$port"
    "$home/supafly" status -o env --override-name DB_URL=database --override-name POOLER_URL=pooler \
      --override-name REST_URL=rest 2>/dev/null | sed -n 's/^\(database\|pooler\|rest\)="\(.*\)"$/\1 \2/p' |
      sed 's#\(://[^:]*\):[^@]*@#\1:…@#' | while read -r name url; do printf '  %-7s %s\n' "$name" "$url"; done
    printf '  page    http://%s/ (health: http://%s/health/ready)\n' "$(address private)" "$(address health)"
    printf '  keys    SUPAFLY_RUN=%s %s keys\n' "$SUPAFLY_RUN" "$home/supafly"
    printf '  status  SUPAFLY_RUN=%s %s status\n\n' "$SUPAFLY_RUN" "$home/supafly"
  } >&2
) & )
exec "$home/supafly" run
