#!/usr/bin/env bash
# Whether containers run on this machine at all: one of an image that holds a single file. Says what does not work.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/parts/env.sh
. scripts/image/engine.sh
name=localhost/supafly-able:$$
trap '"$engine" image rm --force "$name" >/dev/null 2>&1 || :' EXIT
# A program that needs no library: the init that is there for tests under another init.
program=$(command -v tini-static || command -v catatonit) || die "no tini-static and no catatonit to run in a container"
tar -c -C "$(dirname "$program")" "$(basename "$program")" | "$engine" import - "$name" >/dev/null
"$engine" "${run_with[@]}" run --rm "${limits[@]}" "$name" "/$(basename "$program")" --version
