# For a current packer only: `packer init packer/plugins.pkr.hcl`, once. Debian's 1.6.6 has the plugins built in and does not
# know this block, which is why it is not in supafly.pkr.hcl and why packer is given that file and not the directory.
packer {
  required_plugins {
    qemu = {
      source  = "github.com/hashicorp/qemu"
      version = "~> 1"
    }
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = "~> 1"
    }
  }
}
