#!/usr/bin/env bash
# wal-rus, the backup engine that stands in for wal-g where only package registries answer. Three minutes where it must
# be built. Not --locked: its lock names a crate version that some index snapshots lack.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=0.4.1
build() {
  "$SUPAFLY_CACHE/bin/walrus" --version 2>/dev/null | grep -q " $version\$" && return
  say "building wal-rus $version (3 minutes, once)"
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
    CARGO_TARGET_DIR="$SUPAFLY_CACHE/build/walrus" cargo install --quiet --force --root "$SUPAFLY_CACHE" "wal-rus@$version"
  rm -rf "$SUPAFLY_CACHE/build/walrus"
}
locked walrus build
