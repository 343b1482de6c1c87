#!/usr/bin/env bash
# versitygw, the S3 server of the tests. About a minute where it must be built.
set -euo pipefail
. "$(dirname "$0")/env.sh"
version=v1.8.0
build() {
  [ "$(cat "$SUPAFLY_CACHE/bin/versitygw.version" 2>/dev/null)" = "$version" ] && [ -x "$SUPAFLY_CACHE/bin/versitygw" ] && return
  say "building versitygw $version (a minute, once)"
  GOBIN=$SUPAFLY_CACHE/bin go install "github.com/versity/versitygw/cmd/versitygw@$version"
  echo "$version" > "$SUPAFLY_CACHE/bin/versitygw.version"
}
[ -n "${SUPAFLY_VERSITYGW:-}" ] || [ -n "${SUPAFLY_TEST_S3:-}" ] || locked versitygw build
