#!/usr/bin/env bash
# `load` of one raw layer against tar -x, docker load and podman load: `big` is MB megabytes of this machine's own files, `small`
# 20,000 files of 3 kB. LAYERS names which (default: both).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
cd "$scratch"

# What a run before left unwritten is written before the next: only ours ends with a sync, and would pay for the others.
for layer in ${LAYERS:-big small}; do
  layer_archive "$layer"
  cat "$layer.tar" "$layer.docker.tar" > /dev/null
  load="load -q -i $scratch/$layer.docker.tar" remove="rmi -f $layer:1 2>/dev/null; sync -f $scratch"
  runners=("tar-x=tar -C $scratch/x -xf $scratch/$layer.tar") extra=(--before "tar-x=rm -rf $scratch/x; mkdir $scratch/x; sync -f $scratch")
  if up; then runners+=("docker-load=docker $load"); extra+=(--group docker-load=dockerd --before "docker-load=docker $remove"); fi
  podman_image && { runners+=("podman-load=$podman $load"); extra+=(--before "podman-load=$podman $remove"); }
  prepare_ours && { runners+=("ours-load=$ours $load"); extra+=(--before "ours-load=$ours $remove"); }
  race --title "load of a raw layer, $layer, $(($(stat -c %s "$layer.tar") >> 20)) MiB" --reference tar-x --bytes "$(stat -c %s "$layer.tar")" -n "${ROUNDS:-5}" --warmup 1 --keep 1 "${runners[@]}" "${extra[@]}"
  rm -rf "$scratch/x"
done
