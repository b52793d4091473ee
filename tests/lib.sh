# Sourced by the scripts of this repository: what they share about this machine.
# shellcheck shell=bash
cache=${BULKHEAD_TEST_CACHE:-${HOME:-/root}/.cache/bulkhead-tests}
target=x86_64-unknown-linux-musl

say() { printf '%s: %s\n' "$(basename "$0" .sh)" "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command as root: itself when we are root, through sudo otherwise.
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; elif have sudo; then sudo "$@"; else say "needs root for: $*"; return 1; fi; }

# need PACKAGE=PROGRAM ...: installs the Debian packages whose program is missing, in one go, and says so.
need() {
  local missing=() pair
  for pair in "$@"; do have "${pair#*=}" || [ -e "${pair#*=}" ] || missing+=("${pair%%=*}"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  have apt-get || { say "missing: ${missing[*]} (no apt-get here: install them by hand)"; return 1; }
  say "installing with apt-get: ${missing[*]}"
  if [ -z "${apt_updated:-}" ]; then as_root apt-get -qq update; apt_updated=1; fi
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install --no-install-recommends "${missing[@]}" >/dev/null
}

# need_if_possible: the same for what only widens a suite; the tests that need it say that they were skipped.
need_if_possible() { local pair; for pair in "$@"; do need "$pair" || say "going on without ${pair%%=*}"; done; }

# What builds the program: a C compiler (some crates have C in them) and the toolchain's target for static binaries.
need_rust() {
  need gcc=gcc libc6-dev=/usr/include/stdlib.h musl-tools=musl-gcc
  have cargo || { say "cargo is missing: install rustup first"; return 1; }
  if have rustup && ! rustup target list --installed | grep -qx "$target"; then
    say "installing the Rust target $target"
    rustup target add "$target"
  fi
}

# The toolchain's components for formatting and lints; rustup's minimal profile has neither.
need_components() {
  local component
  for component in fmt clippy; do
    cargo "$component" --version >/dev/null 2>&1 && continue
    say "installing the Rust component $component"
    rustup component add "${component/#fmt/rustfmt}"
  done
}

# Path of the binary of a profile's build (dev is called debug on disk).
binary() { local profile=${1:-debug}; printf '%s\n' "${CARGO_TARGET_DIR:-target}/$target/$profile/bulkhead"; }
