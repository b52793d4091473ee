#!/usr/bin/env bash
# Races bulkhead against its peers. `run.sh [start exec density log layers build steps registry]`, default: all of them.
# The peers are Debian's packages; what is missing is installed. Nothing runs any more afterwards, and the scratch directory
# (${BULKHEAD_BENCH_DIR:-/tmp/bulkhead-bench}) is removed unless KEEP=1.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
[ "$(id -u)" = 0 ] || { say "needs root"; exit 1; }
need crun=crun runc=runc podman=podman docker.io=dockerd iproute2=ip busybox-static=busybox python3=python3 bubblewrap=bwrap docker-registry=docker-registry skopeo=skopeo curl=curl
need_rust
if [ -z "${BULKHEAD:-}" ] && [ -z "${PEERS_ONLY:-}" ]; then
  say "building what is shipped"
  cargo build --locked --quiet --profile dist
  BULKHEAD=$(realpath "$(binary dist)")
  export BULKHEAD
fi
[ -z "${PEERS_ONLY:-}" ] || export BULKHEAD=/nonexistent
. benches/lib.sh
# From where the README has people install it, as the peers are: the linker leaves a file that lies in memory in single pages.
if [ -x "$BULKHEAD" ]; then
  install -D -m 755 "$BULKHEAD" "$scratch/bin/bulkhead"
  BULKHEAD=$scratch/bin/bulkhead
fi
trap 'bash benches/down.sh' EXIT
printf '%s, Linux %s, %s processors, load %s, commit %s\n' "$(date +%F)" "$(uname -r)" "$(nproc)" "$(cut -d' ' -f1 /proc/loadavg)" "$(git describe --always --dirty 2>/dev/null || echo unknown)"
for program in crun runc podman docker; do printf '%s: %s\n' $program "$($program --version 2>/dev/null | head -n 1)"; done
[ $# -gt 0 ] || set -- start exec density log layers build steps registry
failed=0
for suite in "$@"; do
  started=$SECONDS
  bash "benches/$suite.sh" || { say "$suite failed"; failed=$((failed + 1)); }
  say "$suite took $((SECONDS - started)) s"
done
printf '%s passed, %s failed\n' $(($# - failed)) $failed
[ $failed = 0 ]
