# Sourced by what takes packages from Debian: `need` collects those that lack, `install_packages` installs them as root, else
# prints the one line that does. Nothing that a package brings is started, neither now nor at the host's next boot.
packages=()
need() { # need PACKAGE TEST…: add PACKAGE when the test fails
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || packages+=("$package")
}
install_packages() { # install_packages [SERVICE…]: in a shell of its own (`locked`); each is disabled when its package is new
  [ ${#packages[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    say "these packages lack; install them and come back:"
    echo "  sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    exit 3
  fi
  say "installing ${packages[*]}"
  # Packages start their services unless this says no. It must not stay, however we end.
  local policy=/usr/sbin/policy-rc.d service
  if [ ! -e "$policy" ]; then
    trap "rm -f '$policy'" EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 0755 "$policy"
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Options::=--force-confold "${packages[@]}" >/dev/null
  for service in "$@"; do
    case " ${packages[*]} " in
    *" $service "*)
      if command -v systemctl >/dev/null; then systemctl disable --quiet "$service" 2>/dev/null || :
      elif command -v update-rc.d >/dev/null; then update-rc.d "$service" disable >/dev/null 2>&1 || :; fi
      ;;
    esac
  done
}
