#!/usr/bin/env bash
# `load` of one raw layer of MB megabytes (copies of this machine's own files), against tar -x, docker load and podman load.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
megabytes=${MB:-500}
cd "$scratch"
if [ ! -s big.docker.tar ]; then
  python3 - "$scratch/layer" "$megabytes" <<'PY'
import os, shutil, sys
target, left = sys.argv[1], int(sys.argv[2]) << 20
for base in ("/usr/lib/x86_64-linux-gnu", "/usr/share", "/usr/lib", "/usr/bin", "/usr/include"):
    for directory, _, files in os.walk(base):
        for name in sorted(files):
            path = os.path.join(directory, name)
            if left <= 0 or os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 40 << 20 or os.path.exists(target + path):
                continue
            os.makedirs(os.path.dirname(target + path), exist_ok=True)
            shutil.copyfile(path, target + path)
            left -= os.path.getsize(path)
PY
  tar -C layer -cf big.tar .
  rm -rf layer
  digest=$(sha256sum big.tar | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"bench"}]}' "$digest" > config.json
  printf '[{"Config":"config.json","RepoTags":["big:1"],"Layers":["big.tar"]}]' > manifest.json
  tar -cf big.docker.tar manifest.json config.json big.tar
fi
cat big.tar big.docker.tar > /dev/null
runners=("tar-x=tar -C $scratch/x -xf $scratch/big.tar") extra=(--before "tar-x=rm -rf $scratch/x; mkdir $scratch/x")
if up; then runners+=("docker-load=docker load -q -i $scratch/big.docker.tar"); extra+=(--group docker-load=dockerd --before 'docker-load=docker rmi -f big:1 2>/dev/null || true'); fi
podman_image && { runners+=("podman-load=$podman load -q -i $scratch/big.docker.tar"); extra+=(--before "podman-load=$podman rmi -f big:1 2>/dev/null || true"); }
prepare_ours && { runners+=("ours-load=$ours load -q -i $scratch/big.docker.tar"); extra+=(--before "ours-load=$ours rmi -f big:1 2>/dev/null || true"); }
race --title "load of a raw layer, $(($(stat -c %s big.tar) >> 20)) MiB" --reference tar-x --bytes "$(stat -c %s big.tar)" -n "${ROUNDS:-5}" --warmup 1 --keep 1 "${runners[@]}" "${extra[@]}"
rm -rf "$scratch/x"
