# A machine image: Debian's own cloud image, and in it, untouched, the root filesystem of the container image, run by systemd
# (docs/adr/0019). Two sources over the same provisioners: `qemu` (a qcow2) and `amazon-ebs` (an AMI).
#
# Written for Debian's packer, 1.6.6, which has its plugins built in. For a current packer plugins.pkr.hcl names them.
# scripts/packer/build.sh exports the root filesystem, makes the key pair of the build, and calls this.

variable "debian" {
  type        = string
  description = "Debian's release, as in image/versions.toml (versions.pkrvars.json)."
}

variable "postgres" {
  type        = string
  description = "Major version of Postgres, for the image's name."
}

variable "version" {
  type        = string
  description = "Version of supafly, for the image's name."
}

variable "rootfs" {
  type        = string
  description = "The container image's root filesystem: a tar.gz, as `docker export` gives it."
}

variable "rootfs_sha256" {
  type        = string
  description = "What it must be when it has arrived."
}

variable "seed" {
  type        = string
  description = "Directory with user-data and meta-data of the build machine (NoCloud), made for this build."
}

variable "ssh_key" {
  type        = string
  description = "Private key of the build machine, made for this build."
}

variable "base_checksum" {
  type        = string
  default     = ""
  description = "Of the Debian image; empty for Debian's own list beside it. A build to be repeated pins it (sha512:...)."
}

variable "arch" {
  type        = string
  default     = "amd64"
  description = "Of the AMI; amd64 or arm64. The qemu source builds amd64."
}

variable "region" {
  type        = string
  default     = "eu-central-1"
  description = "Where the AMI is built."
}

variable "accelerator" {
  type        = string
  default     = "kvm"
  description = "For qemu; tcg where there is no KVM."
}

variable "output" {
  type        = string
  default     = "target/packer"
  description = "Directory of the qcow2; must not be there yet."
}

locals {
  # Debian names its image files by number.
  number   = { bookworm = "12", trixie = "13", forky = "14" }[var.debian]
  name     = "supafly-${var.version}-pg${var.postgres}-${var.debian}"
  base     = "https://cloud.debian.org/images/cloud/${var.debian}/latest"
  checksum = var.base_checksum != "" ? var.base_checksum : "file:${local.base}/SHA512SUMS"
}

source "qemu" "vm" {
  vm_name          = "${local.name}-amd64.qcow2"
  output_directory = var.output
  iso_url          = "${local.base}/debian-${local.number}-genericcloud-amd64.qcow2"
  iso_checksum     = local.checksum
  disk_image       = true
  disk_size        = "8G"
  disk_compression = true
  format           = "qcow2"
  accelerator      = var.accelerator
  headless         = true
  cpus             = 2
  memory           = 2048
  net_device       = "virtio-net"
  disk_interface   = "virtio"

  # The seed of cloud-init: who may come in. Its key goes with the build (seal.sh).
  cd_files = ["${var.seed}/user-data", "${var.seed}/meta-data"]
  cd_label = "cidata"

  ssh_username         = "debian"
  ssh_private_key_file = var.ssh_key
  ssh_timeout          = "20m"
  shutdown_command     = "sudo systemctl poweroff"
}

source "amazon-ebs" "vm" {
  region                      = var.region
  ami_name                    = "${local.name}-${var.arch}-{{timestamp}}"
  ami_description             = "supafly ${var.version}, Postgres ${var.postgres}, on Debian ${local.number}"
  instance_type               = var.arch == "arm64" ? "t4g.small" : "t3.small"
  associate_public_ip_address = true
  ena_support                 = true
  encrypt_boot                = true

  source_ami_filter {
    owners      = ["136693071363"] # Debian
    most_recent = true
    filters = {
      name                = "debian-${local.number}-${var.arch}-*"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_size           = 8
    volume_type           = "gp3"
    throughput            = 125
    iops                  = 3000
    delete_on_termination = true
  }

  # Each instance gets an empty volume for /data, and keeps it when it goes.
  ami_block_device_mappings {
    device_name           = "/dev/sdf"
    volume_size           = 20
    volume_type           = "gp3"
    throughput            = 125
    iops                  = 3000
    encrypted             = true
    delete_on_termination = false
  }

  ssh_username = "admin"
  ssh_timeout  = "10m"

  tags = {
    Name     = local.name
    supafly  = var.version
    postgres = var.postgres
    rootfs   = var.rootfs_sha256
  }
}

build {
  sources = ["source.qemu.vm", "source.amazon-ebs.vm"]

  provisioner "shell" {
    inline = ["cloud-init status --wait >/dev/null || cloud-init status --long", "mkdir -m 0700 /tmp/supafly"]
  }

  provisioner "file" {
    source      = "packer/files/"
    destination = "/tmp/supafly"
  }

  provisioner "file" {
    source      = var.rootfs
    destination = "/tmp/supafly/rootfs.tar.gz"
  }

  provisioner "shell" {
    execute_command  = "sudo env {{ .Vars }} sh -eu {{ .Path }}"
    environment_vars = ["ROOTFS_SHA256=${var.rootfs_sha256}"]
    scripts          = ["packer/install.sh", "packer/seal.sh"]
  }
}
