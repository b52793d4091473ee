#!/usr/bin/env bash
# Start, run and end of `true`: from a directory (tight loop, and after 250 ms of quiet), from an image, with a bridge port.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
cd "$scratch"
layers="$scratch/rootfs,$scratch/floor/up,$scratch/floor/work,$scratch/floor/merged"
runners=("floor=$scratch/floor/floor $layers /bin/true") extra=(--before "floor=rm -rf $scratch/floor/work; mkdir $scratch/floor/work")
for peer in crun runc; do have $peer && runners+=("$peer=$peer --root $run/state-$peer run -b $scratch/bundle-$peer c{i}"); done
have bwrap && runners+=("bwrap=bwrap --bind $scratch/rootfs / --proc /proc --dev /dev --unshare-all /bin/true")
runners+=("spawn-alone=$scratch/rootfs/bin/true")
if have_ours; then
  runners+=("ours=$ours run --rm --network none --rootfs $scratch/rootfs true")
  unhardened="--security-opt seccomp=unconfined --security-opt landlock=off --security-opt systempaths=unconfined --userns host"
  runners+=("ours-without-walls=$ours run --rm --network none $unhardened --rootfs $scratch/rootfs true")
fi
race --title 'start from a directory, tight loop' --reference crun -n "${ROUNDS:-40}" "${runners[@]}" "${extra[@]}"
race --title 'start from a directory, after 250 ms of quiet' --reference crun -n "${ROUNDS_QUIET:-14}" --gap 0.25 "${runners[@]}" "${extra[@]}"

engines_up
runners=() extra=()
if up; then runners+=("docker-none=docker run --rm --network none bb:1 true" "docker-bridge-p=docker run --rm -p 8099:80 bb:1 true"); extra+=(--group docker-none=dockerd --group docker-bridge-p=dockerd); fi
podman_image && runners+=("podman-none=$podman run --rm $podman_run --network none bb:1 true")
prepare_ours && runners+=("ours-none=$ours run --rm --network none bb:1 true" "ours-bridge-p=$ours run --rm -p 8098:80 bb:1 true")
[ ${#runners[@]} -eq 0 ] || race --title 'start from an image' --reference docker-none -n "${ROUNDS_IMAGE:-12}" "${runners[@]}" "${extra[@]}"
