#!/usr/bin/env bash
# What must be here before anything else: Rust, Go, Node and npm. Names what lacks and how to get it, all at once.
set -euo pipefail
missing=()
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
rust=$(rustc --version 2>/dev/null | awk '{print $2}' || :)
go=$(go version 2>/dev/null | awk '{sub("go","",$3); print $3}' || :)
if [ -z "$rust" ] || ! at_least "$rust" 1.90; then
  missing+=("Rust 1.90 or newer with cargo (found: ${rust:-none}): rustup installs it, \`rustup toolchain install stable\`")
fi
if [ -z "$go" ] || ! at_least "$go" 1.26; then
  missing+=("Go 1.26 or newer (found: ${go:-none}): unpack the release archive of the Go project and put its bin on PATH")
fi
node=$(node --version 2>/dev/null | sed 's/^v//' || :)
if [ -z "$node" ] || ! at_least "$node" 20; then
  missing+=("Node 20 or newer (found: ${node:-none}): \`apt-get install nodejs\` from Debian 13 on, or unpack the release archive of the Node project and put its bin on PATH")
fi
command -v npm >/dev/null || missing+=("npm: \`apt-get install npm\`")
if [ ${#missing[@]} -gt 0 ]; then
  echo "supafly: something lacks:" >&2
  printf '  - %s\n' "${missing[@]}" >&2
  exit 3
fi
