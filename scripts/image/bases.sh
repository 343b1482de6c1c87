#!/usr/bin/env bash
# Sourced by build.sh where no image registry answers: makes the base images that the Dockerfile names, under their published
# names, from Debian's packages and from this machine's own Rust and Node. Everything said; nothing of it reaches a registry.

# The host's own certificates are in the builders' bases only, beside Debian's, and so never in what is built.
certificates=/etc/ssl/certs/ca-certificates.crt

# One that we made ourselves is made anew when the way to make it has changed.
edition=2
has_image() {
  local label
  label=$("$engine" image inspect --format '{{index .Labels "supafly.base"}}' "$1" 2>/dev/null) || return
  [ -z "$label" ] || [ "$label" = "$edition" ]
}

base_debian() { # base_debian NAME
  has_image "$1" && return
  local tar=$SUPAFLY_CACHE/image/trixie-$edition.tar
  mkdir -p "${tar%/*}"
  if [ ! -s "$tar" ]; then
    say "no image registry answers: making $1 from Debian's packages by mmdebstrap (10 s)"
    # As the published one: without pages for people.
    mmdebstrap --quiet --format=tar --variant=minbase --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
      --dpkgopt='path-include=/usr/share/doc/*/copyright' --keyring=/usr/share/keyrings/debian-archive-keyring.gpg trixie "$tar.new"
    mv "$tar.new" "$tar"
  fi
  say "importing $1 from a tree made by mmdebstrap: NOT the published image"
  "$engine" import --change 'CMD ["bash"]' --change "LABEL supafly.base=$edition" "$tar" "$1" >/dev/null
}

base_rust() { # base_rust NAME DEBIAN: this machine's toolchain on Debian, laid out as the published image is
  has_image "$1" && return
  local toolchain
  toolchain=$(dirname "$(dirname "$(rustup which cargo 2>/dev/null || command -v cargo)")")
  say "making $1 from this machine's $("$toolchain/bin/rustc" --version): NOT the published image"
  base_from "$1" "$toolchain" "share
etc" "FROM $2
LABEL supafly.base=$edition
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev ca-certificates >/dev/null && rm -rf /var/lib/apt/lists/*
ENV CARGO_HOME=/usr/local/cargo CARGO_HTTP_CAINFO=/etc/ssl/host.pem PATH=/usr/local/rust/bin:/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
COPY --from=host ca-certificates.crt /etc/ssl/host.pem
COPY . /usr/local/rust/"
}

base_node() { # base_node NAME DEBIAN: this machine's Node and npm on Debian
  has_image "$1" && return
  local npm tree
  npm=$(dirname "$(dirname "$(readlink -f "$(command -v npm)")")")
  say "making $1 from this machine's Node $(node --version): NOT the published image"
  tree=$(mktemp -d)
  mkdir -p "$tree/bin" "$tree/lib/node_modules"
  cp -L "$(node -p process.execPath)" "$tree/bin/node"
  cp -R "$npm" "$tree/lib/node_modules/npm"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$tree/bin/npm"
  base_from "$1" "$tree" '' "FROM $2
LABEL supafly.base=$edition
ENV NPM_CONFIG_CAFILE=/etc/ssl/host.pem
COPY --from=host ca-certificates.crt /etc/ssl/host.pem
COPY . /usr/local/"
  rm -rf "$tree"
}

base_from() { # base_from NAME CONTEXT IGNORED DOCKERFILE
  local recipe
  recipe=$(mktemp -d)
  printf '%s\n' "$3" > "$recipe/ignore"
  printf '%s\n' "$4" > "$recipe/Dockerfile"
  "$engine" "${run_with[@]}" build --quiet "${build_with[@]}" --build-context "host=$(dirname "$certificates")" --ignorefile "$recipe/ignore" -f "$recipe/Dockerfile" -t "$1" "$2" >/dev/null
  rm -rf "$recipe"
}
