#!/usr/bin/env bash
# cargo-deny, for lint. About three minutes where it must be built.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=0.20.2
build() {
  "$SUPAFLY_CACHE/bin/cargo-deny" --version 2>/dev/null | grep -q " $version\$" && return
  say "building cargo-deny $version (3 minutes, once)"
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_TARGET_DIR="$SUPAFLY_CACHE/build/deny" cargo install --quiet --locked --force --root "$SUPAFLY_CACHE" "cargo-deny@$version"
  rm -rf "$SUPAFLY_CACHE/build/deny"
}
locked deny build
