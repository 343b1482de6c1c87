#!/usr/bin/env bash
# A machine image from a container image: build.sh SOURCE IMAGE [packer's own arguments], SOURCE is qemu.vm or amazon-ebs.vm.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/parts/env.sh
[ $# -ge 2 ] || die "build.sh qemu.vm|amazon-ebs.vm IMAGE [arguments of packer build]"
source=$1 image=$2
shift 2
if docker version >/dev/null 2>&1; then engine=docker; else engine=podman; fi
command -v "$engine" >/dev/null || die "neither docker nor podman is here to export $image"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "exporting $image"
container=$("$engine" create "$image")
"$engine" export "$container" | gzip -n -1 > "$work/rootfs.tar.gz"
"$engine" rm "$container" >/dev/null
mkdir "$work/seed"
ssh-keygen -q -t ed25519 -N '' -C packer -f "$work/key"
printf '#cloud-config\nssh_authorized_keys: ["%s"]\n' "$(cat "$work/key.pub")" > "$work/seed/user-data"
printf 'instance-id: packer\nlocal-hostname: supafly\n' > "$work/seed/meta-data"
packer build -only="$source" -var-file=packer/versions.pkrvars.json -var "rootfs=$work/rootfs.tar.gz" \
  -var "rootfs_sha256=$(sha256sum "$work/rootfs.tar.gz" | cut -d' ' -f1)" -var "seed=$work/seed" -var "ssh_key=$work/key" \
  "$@" packer/supafly.pkr.hcl
