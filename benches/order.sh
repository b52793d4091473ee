#!/usr/bin/env bash
# Writes hot.ld anew: the order in which the linker lays the functions of a run, then those of a removal. Builds the program with
# its symbols, then runs and removes a container one instruction at a time (half a minute). Needs root, gcc, nm, python3.
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
# On one processor, where a step costs a switch and not a wake-up on another: the supervisor is given 30 s to answer.
step() { taskset -c 0 "$scratch/step" "$@"; }
# Twice: what only the first run of an installation does is not wanted.
$ours run --rm --network none --rootfs "$scratch/rootfs" true
step "$scratch/trace" $ours run --rm --network none --rootfs "$scratch/rootfs" true
prepare_ours
$ours run -d --name order --network none bb:1 sleep 3600 >/dev/null
step "$scratch/removal" $ours rm -f order >/dev/null
sed 's/^[0-9]* /64 /' "$scratch/removal" >>"$scratch/trace"
python3 "$here/order.py" "$BULKHEAD" "$scratch/trace" >"$scratch/hot.ld"
mv "$scratch/hot.ld" "$root/hot.ld"
say "hot.ld is written; a build of the profile dist uses it"
