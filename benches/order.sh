#!/usr/bin/env bash
# Writes hot.ld anew: the order in which the linker lays the functions of a run. Builds the program with its symbols, then runs
# one container one instruction at a time (half a minute). Needs root, gcc, nm, python3.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
target=${ORDER_TARGET:-$root/target/symbols}
BULKHEAD=$target/x86_64-unknown-linux-musl/dist/bulkhead
[ -n "${BULKHEAD_BENCH_INSIDE:-}" ] ||
  (cd "$root" && CARGO_PROFILE_DIST_STRIP=none cargo build --locked --profile dist --target-dir "$target")
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
gcc -O2 -Wall -o "$scratch/step" "$here/step.c"
# Twice: what only the first run of an installation does is not wanted.
$ours run --rm --network none --rootfs "$scratch/rootfs" true
"$scratch/step" "$scratch/trace" $ours run --rm --network none --rootfs "$scratch/rootfs" true
python3 "$here/order.py" "$BULKHEAD" "$scratch/trace" >"$scratch/hot.ld"
mv "$scratch/hot.ld" "$root/hot.ld"
say "hot.ld is written; a build of the profile dist uses it"
