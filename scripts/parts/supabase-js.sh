#!/usr/bin/env bash
# supabase-js from npm, for the tests of the REST API: the versions and digests of tests/rest/js/package-lock.json.
set -euo pipefail
. "$(dirname "$0")/env.sh"
from=$(cd "$(dirname "$0")/../.." && pwd)/tests/rest/js
home=$SUPAFLY_CACHE/supabase-js
wanted=$(sha256sum < "$from/package-lock.json")
fetch() {
  [ "$(cat "$home/installed" 2>/dev/null)" = "$wanted" ] && return
  say "fetching supabase-js (once)"
  rm -rf "$home.new"
  mkdir -p "$home.new"
  cp "$from/package.json" "$from/package-lock.json" "$home.new/"
  # Nothing of what is fetched runs while it is installed.
  npm ci --prefix "$home.new" --ignore-scripts --no-audit --no-fund --silent
  echo "$wanted" > "$home.new/installed"
  rm -rf "$home"
  mv "$home.new" "$home"
}
[ -n "${SUPAFLY_SUPABASE_JS:-}" ] || locked supabase-js fetch
