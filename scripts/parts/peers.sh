#!/usr/bin/env bash
# The peers of `make bench`, and of nothing else: s6, runit, supervisor and tini from Debian, Horust by cargo (three
# minutes, once). As root they are installed; else the one line is printed. None of their services is started.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=0.1.14

packages=()
need() { command -v "$2" >/dev/null || packages+=("$1"); }
need s6 s6-svscan
need runit runsvdir
need supervisor supervisord
need tini tini

from_debian() {
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    say "these packages lack; install them and come back:"
    echo "  sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 3
  fi
  say "installing ${packages[*]}"
  # Packages start their services unless this says no.
  policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    ours=$policy
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 0755 "$policy"
  fi
  [ -z "$ours" ] || trap 'rm -f "$ours"' EXIT
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
  if command -v systemctl >/dev/null; then systemctl disable --quiet supervisor 2>/dev/null || :; fi
}

horust() {
  # It does not say its version itself.
  [ "$(cat "$SUPAFLY_CACHE/bin/horust.version" 2>/dev/null)" = "$version" ] && [ -x "$SUPAFLY_CACHE/bin/horust" ] && return
  say "building Horust $version (3 minutes, once)"
  CARGO_TARGET_DIR="$SUPAFLY_CACHE/build/horust" cargo install --quiet --locked --force --root "$SUPAFLY_CACHE" "horust@$version"
  rm -rf "$SUPAFLY_CACHE/build/horust"
  echo "$version" > "$SUPAFLY_CACHE/bin/horust.version"
}

locked debian from_debian
[ -n "${SUPAFLY_HORUST:-}" ] || locked horust horust
