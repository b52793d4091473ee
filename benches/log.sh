#!/usr/bin/env bash
# A container writes SIZE MiB to stdout: rate, what is kept on disk, memory of the supervisor, and the start of a neighbour meanwhile.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
size=${SIZE:-1000}
script="yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -c ${size}m"
runners=() extra=()
# Docker and podman get the same cap as ours.
if up; then runners+=("docker=docker run --rm --network none --log-opt max-size=10m --log-opt max-file=5 bb:1 sh -c '$script'"); extra+=(--group docker=dockerd); fi
podman_image && runners+=("podman=$podman run --rm $podman_run --network none --log-driver k8s-file --log-opt max-size=10mb bb:1 sh -c '$script'")
prepare_ours && runners+=("ours=$ours run --rm --network none bb:1 sh -c '$script'")
[ ${#runners[@]} -eq 0 ] || race --title "logging $size MiB (foreground; output thrown away by the reader)" --bytes $((size << 20)) -n "${ROUNDS:-3}" --warmup 0 "${runners[@]}" "${extra[@]}"
if prepare_ours; then
  $ours rm -f loud >/dev/null 2>&1 || true
  before=$(date +%s%N)
  $ours run -d --name loud --network none bb:1 sh -c "$script" >/dev/null
  peak=0
  while [ -n "$($ours ps -q -f name=loud)" ]; do
    for pid in $(pgrep -x bulkhead-shim || true); do
      kib=$(awk '/^VmHWM/ {print $2}' "/proc/$pid/status" 2>/dev/null || echo 0)
      [ "${kib:-0}" -le "$peak" ] || peak=$kib
    done
    sleep 0.05
  done
  milliseconds=$((($(date +%s%N) - before) / 1000000))
  id=$($ours inspect --format '{{.Id}}' loud)
  printf 'ours, detached: %s MiB in %s ms (%s MB/s), kept %s MiB, supervisor at most %s MiB\n' "$size" "$milliseconds" $((size * 1048576 / milliseconds / 1000)) \
    "$(du -sm "$scratch/ours/containers/$id" | cut -f1)" $((peak >> 10))
  $ours rm -f loud >/dev/null
fi
