#!/usr/bin/env bash
# Checks the dependencies with cargo-deny; installs it once into the cache directory when it is missing.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
PATH=$PATH:$cache/tools/bin
if ! have cargo-deny; then
  say "installing cargo-deny into $cache/tools (once, a few minutes)"
  # A debug build is ready in half the time; from the root directory so that our own target and flags stay out of it.
  (cd / && CARGO_TARGET_DIR="$cache/tools/build" cargo install cargo-deny@0.20.2 --locked --debug --quiet --root "$cache/tools")
  rm -rf "$cache/tools/build"
fi
cargo deny --locked check --hide-inclusion-graph bans licenses sources
# The advisories are a git repository, which places that only reach package registries cannot fetch.
if timeout 120 cargo deny --locked fetch db >/dev/null 2>&1; then
  cargo deny --locked check advisories
elif [ "${BULKHEAD_TEST_STRICT:-}" = 1 ]; then
  say "advisories: the database cannot be reached"; exit 1
else
  say "SKIPPED advisories: the database cannot be reached from here (BULKHEAD_TEST_STRICT=1 makes this a failure)"
fi
