#!/usr/bin/env bash
# The numbers, side by side: builds for release, installs the peers, runs the rows. Arguments: names of rows to run only
# these, --quick for a small round that shows that it works. A whole run writes docs/benchmarks.*, others target/numbers;
# --again with names of rows puts these in place of the former ones in docs/benchmarks.*.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/parts/env.sh
scripts/parts/all.sh
scripts/parts/peers.sh
export SUPAFLY_VERSITYGW=${SUPAFLY_VERSITYGW:-$SUPAFLY_CACHE/bin/versitygw}
export SUPAFLY_POSTGREST=${SUPAFLY_POSTGREST:-$(command -v postgrest || echo "$SUPAFLY_CACHE/bin/postgrest")}
export SUPAFLY_WALG=${SUPAFLY_WALG:-$(command -v wal-g || echo "$SUPAFLY_CACHE/bin/walrus")}
export SUPAFLY_HORUST=${SUPAFLY_HORUST:-$SUPAFLY_CACHE/bin/horust}
# What is measured is built for release; harness and actor are not what is measured.
cargo build --locked --release
cargo build --locked --example actor
exec cargo bench --locked --quiet --profile dev --bench numbers -- "$@"
