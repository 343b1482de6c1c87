#!/usr/bin/env bash
# `packer validate` of both sources with Debian's packer, and `systemd-analyze verify` of the unit. Needs no network but for
# the packages, and builds nothing: the root filesystem, the key and the checksum are made up, and only their shape counts.
set -euo pipefail
cd "$(dirname "$0")/../.."
. scripts/parts/env.sh
. scripts/parts/packages.sh
# Debian 12 has packer, 13 has none. Lists that cannot be fetched are an error, not a sign that there is none.
packer=yes
if ! command -v packer >/dev/null; then
  [ "$(id -u)" != 0 ] || apt-get update -qq
  case $(LC_ALL=C apt-cache policy packer | sed -n 's/^ *Candidate: //p') in
  '' | '(none)') packer=no ;;
  *) need packer false ;;
  esac
fi
need openssh-client command -v ssh-keygen
need systemd command -v systemd-analyze
locked packer install_packages
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/seed"
touch "$work/rootfs.tar.gz" "$work/seed/user-data" "$work/seed/meta-data"
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
for source in qemu.vm amazon-ebs.vm; do
  [ $packer = yes ] || continue
  CHECKPOINT_DISABLE=1 PACKER_CACHE_DIR=$work/cache packer validate -only="$source" -var-file=packer/versions.pkrvars.json \
    -var "rootfs=$work/rootfs.tar.gz" -var "rootfs_sha256=$(printf '0%.0s' {1..64})" -var "seed=$work/seed" \
    -var "ssh_key=$work/key" -var "base_checksum=sha512:$(printf '0%.0s' {1..128})" packer/supafly.pkr.hcl
done
for script in packer/*.sh; do sh -n "$script"; done
for script in scripts/packer/*.sh; do bash -n "$script"; done
# The program that the unit names is in the image; on this machine a stand-in has its place, so that the rest is verified.
sed "s#^ExecStart=/usr/bin/supafly#ExecStart=$(command -v true)#" packer/files/supafly.service > "$work/supafly.service"
said=$(systemd-analyze verify --man=no --recursive-errors=no "$work/supafly.service" 2>&1) || { echo "$said" >&2; exit 1; }
[ -z "$said" ] || { echo "$said" >&2; exit 1; }
if [ $packer = yes ]; then
  say "packer $(packer version | sed -n 's/^Packer v//p') takes both sources; systemd takes the unit"
else
  say "systemd takes the unit; this Debian has no packer: its sources are NOT VALIDATED here (Debian 12 has one)"
fi
