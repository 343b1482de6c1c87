# Sourced by every script: where installed parts live, and how their paths reach the tests.
# A part's path that is already set wins: others run the same tests against the real wal-g.
SUPAFLY_CACHE=${SUPAFLY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/supafly}
export SUPAFLY_CACHE
mkdir -p "$SUPAFLY_CACHE/bin"
say() { printf 'supafly: %s\n' "$*" >&2; }
die() { printf 'supafly: %s\n' "$*" >&2; exit 1; }
# One installer of a part at a time on this machine; a second one waits and then finds it done.
locked() {
  local name=$1
  shift
  ( flock 9; "$@" ) 9>"$SUPAFLY_CACHE/.$name.lock"
}
