#!/usr/bin/env bash
# Installs the real parts, then runs every test. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/parts/env.sh
scripts/parts/all.sh
export SUPAFLY_VERSITYGW=${SUPAFLY_VERSITYGW:-$SUPAFLY_CACHE/bin/versitygw}
if [ -z "${SUPAFLY_WALG:-}" ]; then
  if engine=$(command -v wal-g); then export SUPAFLY_WALG=$engine
  else
    export SUPAFLY_WALG=$SUPAFLY_CACHE/bin/walrus
    say "the backup engine under test is wal-rus, which stands in for wal-g (on no package registry); SUPAFLY_WALG names another"
  fi
fi
if [ -z "${SUPAFLY_POSTGREST:-}" ]; then
  SUPAFLY_POSTGREST=$(command -v postgrest || echo "$SUPAFLY_CACHE/bin/postgrest")
  export SUPAFLY_POSTGREST
fi
export SUPAFLY_SUPABASE_JS=${SUPAFLY_SUPABASE_JS:-$SUPAFLY_CACHE/supabase-js}
say "backup engine: $SUPAFLY_WALG; S3 server: ${SUPAFLY_TEST_S3:-$SUPAFLY_VERSITYGW}; REST API: $("$SUPAFLY_POSTGREST" --version)"
cargo build --locked --all-targets
cargo test --locked "$@"
