#!/usr/bin/env bash
# Sourced: which program builds and runs images here, and with what. Sets `engine`, `run_with` (before the subcommand) and
# `build_with` (after `build`), `limits` (after `build` and `run`); `registry_answers IMAGE`.
engine=${SUPAFLY_ENGINE:-}
run_with=() build_with=() limits=()
if [ -z "$engine" ]; then
  if docker info >/dev/null 2>&1; then engine=docker
  else
    scripts/parts/containers.sh
    engine=podman
  fi
fi
if [ "$engine" = podman ]; then
  # crun of Debian 12 does not start containers where cgroups are of both versions; runc does.
  ! command -v runc >/dev/null || run_with=(--runtime runc)
  # Its own defaults are more than a machine that is itself a container may give, and some programs close every descriptor
  # that they might have.
  least() { [ "$2" = unlimited ] || [ "$2" -ge "$1" ] && echo "$1" || echo "$2"; }
  files=$(least 1024 "$(ulimit -Hn)") processes=$(least 4096 "$(ulimit -Hu)")
  limits=(--ulimit "nofile=$files:$files" --ulimit "nproc=$processes:$processes")
  # Without this format podman leaves HEALTHCHECK out.
  build_with=(--format docker --network host "${limits[@]}")
fi

registry_answers() { # registry_answers IMAGE: asked of the one that this image comes from
  local host=${1%%/*}
  [ "$host" != docker.io ] || host=registry-1.docker.io
  # 401 is an answer, too.
  curl --silent --output /dev/null --max-time 5 "https://$host/v2/"
}
