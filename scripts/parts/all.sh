#!/usr/bin/env bash
# Everything the tests need beyond Rust, Go, Node and npm.
set -euo pipefail
cd "$(dirname "$0")"
./check.sh
./debian.sh
./versitygw.sh
[ -n "${SUPAFLY_WALG:-}" ] || command -v wal-g >/dev/null || ./walrus.sh
[ -n "${SUPAFLY_POSTGREST:-}" ] || command -v postgrest >/dev/null || ./postgrest.sh
./supabase-js.sh
