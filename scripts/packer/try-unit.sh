#!/usr/bin/env bash
# The unit for real, as root: Debian's systemd in a container of its own (systemd-nspawn, no network), packer/install.sh run in
# it, supafly under it, not PID 1. try-unit.sh [IMAGE]: with a container image, its root filesystem is the one; without, a
# STAND-IN is made of Debian's packages and target/debug/supafly, and said.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/parts/env.sh
. scripts/parts/packages.sh
[ "$(id -u)" = 0 ] || die "only root can boot a container of systemd"
need systemd-container command -v systemd-nspawn
need mmdebstrap command -v mmdebstrap
need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-trixie-stable.gpg
locked debian install_packages
debian=$(sed -n 's/.*"debian": "\(.*\)".*/\1/p' packer/versions.pkrvars.json)
postgres=$(sed -n 's/.*"postgres": "\(.*\)".*/\1/p' packer/versions.pkrvars.json)
work=$(mktemp -d -p "${SUPAFLY_TRY_DIR:-/var/tmp}")
leader=
finish() {
  [ -z "$leader" ] || kill -KILL "$leader" 2>/dev/null || :
  wait || :
  rm -rf --one-file-system "$work"
}
trap finish EXIT
tree() { # tree DIRECTORY PACKAGES: from Debian once, then from what is kept
  local kept=$SUPAFLY_CACHE/trees/$debian-$(printf %s "$2" | tr -c 'a-z0-9\n' -).tar
  if [ ! -e "$kept" ]; then
    mkdir -p "${kept%/*}"
    mmdebstrap --quiet --variant=minbase --include="$2" --keyring=/usr/share/keyrings "$debian" - > "$kept.new"
    mv "$kept.new" "$kept"
  fi
  mkdir "$1"
  tar -C "$1" --numeric-owner -xpf "$kept"
}

say "a host of $debian, with its systemd"
tree "$work/host" systemd,systemd-sysv,procps
mkdir "$work/in" "$work/data"
# A user of the host who has a number that the stack wants.
chroot "$work/host" sh -euc 'groupadd -g 990 guest; useradd -u 990 -g 990 -M guest; install -D -o guest -g guest /dev/null /var/lib/guest/file'
cp packer/files/* "$work/in"
if [ -n "${1:-}" ]; then
  if docker version >/dev/null 2>&1; then engine=docker; else engine=podman; fi
  command -v "$engine" >/dev/null || die "neither docker nor podman is here to export $1"
  container=$("$engine" create "$1")
  "$engine" export "$container" | gzip -n -1 > "$work/in/rootfs.tar.gz"
  "$engine" rm "$container" >/dev/null
else
  say "no image is named: a STAND-IN for its root filesystem is made of Debian's postgresql-$postgres and pgbouncer"
  tree "$work/image" "postgresql-$postgres,pgbouncer,ca-certificates"
  install -m 0755 "${CARGO_TARGET_DIR:-target}/debug/supafly" "$work/image/usr/bin/supafly"
  install -d "$work/image/etc/supafly" "$work/image/data"
  cp -R services "$work/image/etc/supafly/services"
  for user in 990:supafly 991:supafly-web 992:supafly-rest 993:supafly-pool; do
    chroot "$work/image" groupadd --system --gid "${user%%:*}" "${user#*:}"
    chroot "$work/image" useradd --system --uid "${user%%:*}" --gid "${user%%:*}" --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "${user#*:}"
  done
  tar -C "$work/image" -czf "$work/in/rootfs.tar.gz" .
fi

boot=(systemd-nspawn --quiet --register=no --keep-unit --link-journal=no --private-network -D "$work/host")
"${boot[@]}" --as-pid2 --bind="$work/in:/tmp/supafly" --bind-ro="$PWD/packer:/mnt" \
  --setenv=ROOTFS_SHA256="$(sha256sum "$work/in/rootfs.tar.gz" | cut -d' ' -f1)" sh -eu /mnt/install.sh
[ "$(chroot "$work/host" stat -c %U:%G /var/lib/guest/file)" = guest:guest ] && [ "$(chroot "$work/host" id -u guest)" != 990 ] ||
  die "the guest of the host kept a number of the stack, or lost a file"
"${boot[@]}" --boot --bind="$work/data:/data" </dev/null >"$work/console" 2>&1 &
nspawn=$!
inside() { nsenter -t "$leader" -m -p -n -u -i -- "$@"; }
until_true() { # until_true SECONDS WHAT COMMAND…
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      tail -5 "$work/console" >&2
      inside journalctl --no-pager -n 40 -o cat -u supafly >&2 || :
      die "waited in vain: $what"
    fi
    sleep 0.2
  done
  say "ok: $what"
}
found() { leader=$(pgrep -P "$nspawn" | head -1) && [ -n "$leader" ] && inside systemctl is-active multi-user.target; }
until_true 60 "systemd is up" found
main() { inside systemctl show --value -p MainPID supafly; }
sql() { inside nsenter -t "$(main)" -m -r -- setpriv --reuid=postgres --regid=postgres --clear-groups \
  psql -X -h /run/supafly/postgres -Atc "$1" postgres; }
until_true 120 "ready, as the host's own command says" inside supafly health --ready
# Also what does not count for readiness: the pooler, PostgREST.
all_up() { local said; said=$(inside supafly status --json) && ! grep -qE '"state": "(waiting|starting|backoff|failed|down|held)"' <<< "$said"; }
until_true 60 "every service is up" all_up
[ "$(main)" != 1 ] || die "it is PID 1"
sql 'create table kept (n int)' >/dev/null
sql 'insert into kept values (1)' >/dev/null
[ "$(inside cat /usr/lib/supafly/rootfs.sha256)" = "$(sha256sum "$work/in/rootfs.tar.gz" | cut -d' ' -f1)" ] || die "another root filesystem"
! inside nsenter -t "$(main)" -m -r -- touch /usr/bin/x 2>/dev/null || die "the image's files can be written"
say "ok: what is in the image cannot be written; it runs as $(main), and $(inside ps -o user= -C postgres | sort | uniq -c | xargs) postgres"

begun=$SECONDS
inside systemctl stop supafly
[ "$(inside systemctl show --value -p Result supafly)" = success ] || die "the stop: $(inside systemctl show -p Result -p ExecMainStatus supafly)"
! inside pgrep postgres >/dev/null || die "Postgres is still there"
say "ok: an orderly stop, $((SECONDS - begun)) s, exit $(inside systemctl show --value -p ExecMainStatus supafly)"
said=$(inside journalctl --no-pager -o cat -u supafly)
[[ $said == *'database system is shut down'* ]] || die "Postgres did not say that it is shut down: ${said: -2000}"

inside systemctl start supafly
until_true 120 "ready again" inside supafly health --ready
[ "$(sql 'select count(*) from kept')" = 1 ] || die "the row is gone"
before=$(main)
inside kill -KILL "$before"
again() { [ "$(main)" != "$before" ] && [ "$(main)" != 0 ] && inside supafly health --ready; }
until_true 120 "killed, and started again by systemd" again
[ "$(sql 'select count(*) from kept')" = 1 ] || die "the row is gone"
[ "$(inside pgrep -c -x supafly)" -ge 1 ] && [ "$(inside pgrep -fc 'postgres -D')" = 1 ] || die "two of them"

inside systemctl stop supafly
inside umount /data
! inside systemctl start supafly 2>/dev/null || die "it started without its volume"
say "ok: without its volume it does not start"
kill -s RTMIN+4 "$leader" # power off
wait "$nspawn" || :
leader=
say "the unit works: systemd $(chroot "$work/host" systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')"
