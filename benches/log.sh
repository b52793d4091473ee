#!/usr/bin/env bash
# A container writes SIZE MiB of lines to stdout: rate against the peers' (foreground), alone (detached) with the memory of its
# supervisor, and how much a neighbour is slowed meanwhile. The lines come from a file, so that their making costs next to nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
size=${SIZE:-1000}
if [ ! -s "$scratch/lines" ]; then
  (set +o pipefail; yes 0123456789012345678901234567890123456789012345678901234567890123456789012345678 | head -c 10m > "$scratch/lines")
fi
# Writes that many times 10 MiB.
lines() { printf 'cat $(yes /lines | head -n %s)' "$1"; }
script=$(lines $((size / 10)))
mount="-v $scratch/lines:/lines:ro"

# Prints the processor time a process used so far, in ticks of 10 ms.
ticks() { awk '{print $14 + $15}' "/proc/$1/stat" 2>/dev/null || echo 0; }

# The supervisor of the container started last.
supervisor() { pgrep -n -x bulkhead-shim; }

alone() {
  local before pid peak=0 used=0 now line alive=1
  $ours rm -f loud >/dev/null 2>&1 || true
  before=$(date +%s%N)
  $ours run -d --name loud --network none $mount bb:1 sh -c "$script" >/dev/null
  pid=$(supervisor)
  # Looked at without starting anything but a sleep: the rate is measured meanwhile.
  while [ $alive = 1 ]; do
    alive=0 # one that ended and has not been waited for has no memory
    while read -r line; do
      case $line in VmHWM:*) alive=1; line=${line#VmHWM:}; line=${line%kB}; now=$((line)); [ $now -le $peak ] || peak=$now ;; esac
    done 2>/dev/null < "/proc/$pid/status" || true
    if read -r line 2>/dev/null < "/proc/$pid/stat"; then
      set -- ${line##*) }
      [ $((${12} + ${13})) -le $used ] || used=$((${12} + ${13}))
    fi
    sleep 0.02
  done
  local milliseconds=$((($(date +%s%N) - before) / 1000000))
  local id; id=$($ours inspect --format '{{.Id}}' loud)
  printf 'ours, detached: %s MiB in %s ms (%s MB/s), kept %s MiB; supervisor: at most %s KiB, %s ms of a processor\n' "$size" "$milliseconds" \
    $((size * 1048576 / milliseconds / 1000)) "$(du -sm "$scratch/ours/containers/$id" | cut -f1)" "$peak" $((used * 10))
  $ours rm -f loud >/dev/null
}

# Milliseconds that a neighbour needs for its work, and how many of them it waited for a processor (by the kernel's account: what
# it computed meanwhile may have been slow for reasons that lie outside of this machine); on processor 1 where `pinned` is set.
neighbour() {
  local before waited; before=$(date +%s%N)
  waited=$(${pinned:+taskset -c 1} $ours run --rm --network none bb:1 sh -c "$1"'; read -r ran waited rest < /proc/$$/schedstat; echo $((waited / 1000000))')
  echo $((($(date +%s%N) - before) / 1000000)) "$waited"
}

# A container that floods its log until it is removed (at most 40 GB), on processor 0 with its supervisor where `pinned` is set.
flood() {
  ${pinned:+taskset -c 0} $ours run -d --name flood --network none $mount bb:1 sh -c "$(lines 4000)" >/dev/null
}

median() { sort -n | awk '{all[NR] = $0} END {print all[int((NR + 1) / 2)]}'; }

# The neighbour's work in turns, without and with the flood beside it.
beside() {
  local what=$1 work=$2 quiet='' loud='' pid before since
  for _ in $(seq "${ROUNDS:-3}"); do
    quiet+="$(neighbour "$work")"$'\n'
    flood
    pid=$(supervisor) before=$(ticks "$(supervisor)") since=$(date +%s%N)
    loud+="$(neighbour "$work")"$'\n'
    rate=$((($(ticks "$pid") - before) * 1000000000 / ($(date +%s%N) - since)))
    $ours rm -f flood >/dev/null
  done
  quiet=$(printf %s "$quiet" | median) loud=$(printf %s "$loud" | median)
  printf '%-46s %6s ms alone, %6s ms beside the flood: %+.1f %%; waited %s and %s ms (the supervisor used %s %% of a processor)\n' "$what" "${quiet% *}" "${loud% *}" \
    "$(awk "BEGIN {print (${loud% *} / ${quiet% *} - 1) * 100}")" "${quiet#* }" "${loud#* }" "$rate"
}

runners=() extra=()
# Docker and podman get the same cap as ours.
if up; then runners+=("docker=docker run --rm --network none $mount --log-opt max-size=10m --log-opt max-file=5 bb:1 sh -c '$script'"); extra+=(--group docker=dockerd); fi
podman_image && runners+=("podman=$podman run --rm $podman_run --network none $mount --log-driver k8s-file --log-opt max-size=10mb bb:1 sh -c '$script'")
prepare_ours && runners+=("ours=$ours run --rm --network none $mount bb:1 sh -c '$script'")
[ ${#runners[@]} -eq 0 ] || [ -n "${ONLY_OURS:-}" ] || race --title "logging $size MiB (foreground; output thrown away by the reader)" --bytes $((size << 20)) -n "${ROUNDS:-3}" --warmup 0 "${runners[@]}" "${extra[@]}"
if prepare_ours; then
  for _ in $(seq "${ROUNDS:-3}"); do alone; done
  $ours rm -f flood >/dev/null 2>&1 || true
  compute='i=0; while [ $i -lt 1500000 ]; do i=$((i+1)); done'
  files='i=0; while [ $i -lt 5000 ]; do echo $i > /tmp/$((i%100)); i=$((i+1)); done'
  # One processor for the flood, its container and its supervisor; the other for the neighbour: what is left is what logging
  # does to others through caches, memory and disk. Not pinned, all three also share processors, as any three programs would.
  if [ "$(nproc)" -gt 1 ]; then
    pinned=1
    beside "neighbour computes, processor of its own" "$compute"
    beside "neighbour writes files, processor of its own" "$files"
  fi
  pinned=
  beside "neighbour computes, any processor" "$compute"
fi
