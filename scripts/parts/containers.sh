#!/usr/bin/env bash
# What builds and runs the image where no docker daemon answers: podman and runc; mmdebstrap for the bases where no image
# registry answers either. As root they are installed; else the one line is printed.
set -euo pipefail
. "$(dirname "$0")/env.sh"
. "$(dirname "$0")/packages.sh"
need podman command -v podman
need runc command -v runc
need crun command -v crun
need mmdebstrap command -v mmdebstrap
need catatonit command -v catatonit
need netavark test -x /usr/lib/podman/netavark
need iptables env PATH="$PATH:/usr/sbin" sh -c "command -v iptables"
need debian-archive-keyring test -e /usr/share/keyrings/debian-archive-trixie-stable.gpg
locked debian install_packages podman
