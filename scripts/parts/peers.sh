#!/usr/bin/env bash
# The peers of `make bench`, and of nothing else: s6, runit, supervisor and tini from Debian, Horust by cargo (three
# minutes, once). As root they are installed; else the one line is printed. None of their services is started.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=0.1.14

. "$(dirname "$0")/packages.sh"
need s6 command -v s6-svscan
need runit command -v runsvdir
need supervisor command -v supervisord
need tini command -v tini

horust() {
  # It does not say its version itself.
  [ "$(cat "$SUPAFLY_CACHE/bin/horust.version" 2>/dev/null)" = "$version" ] && [ -x "$SUPAFLY_CACHE/bin/horust" ] && return
  say "building Horust $version (3 minutes, once)"
  CARGO_TARGET_DIR="$SUPAFLY_CACHE/build/horust" cargo install --quiet --locked --force --root "$SUPAFLY_CACHE" "horust@$version"
  rm -rf "$SUPAFLY_CACHE/build/horust"
  echo "$version" > "$SUPAFLY_CACHE/bin/horust.version"
}

locked debian install_packages supervisor
[ -n "${SUPAFLY_HORUST:-}" ] || locked horust horust
