#!/usr/bin/env bash
# toxiproxy, for faults of the line (latency, resets, bandwidth). Twenty seconds where it must be built.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=v2.5.0
build() {
  [ "$(cat "$SUPAFLY_CACHE/bin/toxiproxy.version" 2>/dev/null)" = "$version" ] && [ -x "$SUPAFLY_CACHE/bin/toxiproxy-server" ] && return
  say "building toxiproxy $version (20 seconds, once)"
  # Its program is called `server`, which says too little in a directory with others.
  local dir=$SUPAFLY_CACHE/build/toxiproxy
  mkdir -p "$dir"
  GOBIN=$dir go install "github.com/Shopify/toxiproxy/v2/cmd/server@$version"
  mv "$dir/server" "$SUPAFLY_CACHE/bin/toxiproxy-server"
  rm -rf "$dir"
  echo "$version" > "$SUPAFLY_CACHE/bin/toxiproxy.version"
}
[ -n "${SUPAFLY_TOXIPROXY:-}" ] || locked toxiproxy build
