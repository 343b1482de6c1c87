#!/usr/bin/env bash
# Everything that must be clean: format, clippy, licences and sources, shell scripts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/parts/env.sh
scripts/parts/check.sh
cargo fmt --check
cargo clippy --locked --all-targets -- -D warnings
scripts/parts/deny.sh
# It looks at what other systems would be built from, too, which no build here has fetched.
cargo fetch --locked --quiet
"$SUPAFLY_CACHE/bin/cargo-deny" --offline --locked check bans licenses sources
for script in .ci/run image/fetch image/refresh packer/*.sh scripts/*.sh scripts/*/*.sh; do bash -n "$script"; done
# 400 lines are the aim; a file of tests may be longer, because its cases belong together.
long=$(git ls-files 'src/*.rs' 'tests/*.rs' 'benches/*.rs' | grep -v 'tests\.rs$' | xargs wc -l | awk '$2 != "total" && $1 > 500 { print "  " $1 " " $2 }')
if [ -n "$long" ]; then printf 'lint: files that are too long:\n%s\n' "$long" >&2; exit 1; fi
echo "lint: clean"
