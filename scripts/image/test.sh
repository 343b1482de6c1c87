#!/usr/bin/env bash
# `make test-image`: builds both targets, then tests them in containers. Arguments go to the test program: names of tests.
#
#   SUPAFLY_TEST_IMAGE_SLIM, _FULL   images that exist, in place of building them
#   SUPAFLY_TEST_IMAGE_FORMER        an older image to upgrade from (default: none is older, so slim itself)
#   SUPAFLY_BLESS=1                  writes docs/extensions.md
#   SUPAFLY_TEST_THREADS             how many tests at a time (default 2: each has a Postgres or two)
#
# PARTS, SUPAFLY_ENGINE: see build.sh. By hand: cargo test --test image -- --test-threads=2 NAME
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/parts/env.sh
scripts/parts/check.sh
scripts/parts/debian.sh
scripts/parts/versitygw.sh
. scripts/image/engine.sh
for target in slim full; do
  name=SUPAFLY_TEST_IMAGE_${target^^}
  if [ -z "${!name:-}" ]; then
    TARGET=$target scripts/image/build.sh
    export "$name=localhost/supafly:$target"
  fi
  say "$target under test, ${!name} (what stands in for something else says STAND-IN):"
  "$engine" "${run_with[@]}" run --rm "${limits[@]}" --entrypoint supafly "${!name}" version --all >&2
done
[ -n "${SUPAFLY_TEST_IMAGE_FORMER:-}" ] || say "no release is older than this one: slim STANDS IN for the former image"
export SUPAFLY_ENGINE=${SUPAFLY_ENGINE:-$engine} SUPAFLY_TEST_RUN=$$
export SUPAFLY_VERSITYGW=${SUPAFLY_VERSITYGW:-$SUPAFLY_CACHE/bin/versitygw}
clean() { # each test removes what is its own, unless it is killed
  "$engine" ps --all --quiet --filter "label=supafly.test=$$" | xargs -r "$engine" rm --force --volumes >/dev/null 2>&1 || :
  "$engine" volume ls --quiet --filter "label=supafly.test=$$" | xargs -r "$engine" volume rm --force >/dev/null 2>&1 || :
}
trap clean EXIT
cargo test --locked --test image -- --test-threads="${SUPAFLY_TEST_THREADS:-2}" "$@"
