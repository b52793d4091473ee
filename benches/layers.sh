#!/usr/bin/env bash
# `load` of one raw layer against tar -x, docker load and podman load: `big` is MB megabytes of this machine's own files, `small`
# 20,000 files of 3 kB. LAYERS names which (default: both).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
megabytes=${MB:-500}
cd "$scratch"

# Fills the directory `layer`.
fill() {
  rm -rf "$scratch/layer"
  python3 - "$scratch/layer" "$1" "$megabytes" <<'PY'
import os, shutil, sys
target, kind, left = sys.argv[1], sys.argv[2], int(sys.argv[3]) << 20
for number in range(20000 if kind == "small" else 0):
    directory = f"{target}/d{number % 200}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/f{number}", "wb") as file:
        file.write(b"line %d\n" % number * (3000 // len(b"line %d\n" % number)))
for base in ("/usr/lib/x86_64-linux-gnu", "/usr/share", "/usr/lib", "/usr/bin", "/usr/include") if kind == "big" else ():
    for directory, _, files in os.walk(base):
        for name in sorted(files):
            path = os.path.join(directory, name)
            if left <= 0 or os.path.islink(path) or not os.path.isfile(path) or os.path.getsize(path) > 40 << 20 or os.path.exists(target + path):
                continue
            os.makedirs(os.path.dirname(target + path), exist_ok=True)
            shutil.copyfile(path, target + path)
            left -= os.path.getsize(path)
PY
}

# Makes `$1.tar` and an archive of an image of it, `$1.docker.tar`.
make() {
  [ ! -s "$1.docker.tar" ] || return 0
  fill "$1"
  tar -C layer -cf "$1.tar" .
  rm -rf layer
  local digest; digest=$(sha256sum "$1.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"bench"}]}' "$digest" > config.json
  printf '[{"Config":"config.json","RepoTags":["%s:1"],"Layers":["%s.tar"]}]' "$1" "$1" > manifest.json
  tar -cf "$1.docker.tar" manifest.json config.json "$1.tar"
}

# What a run before left unwritten is written before the next: only ours ends with a sync, and would pay for the others.
for layer in ${LAYERS:-big small}; do
  make "$layer"
  cat "$layer.tar" "$layer.docker.tar" > /dev/null
  load="load -q -i $scratch/$layer.docker.tar" remove="rmi -f $layer:1 2>/dev/null; sync -f $scratch"
  runners=("tar-x=tar -C $scratch/x -xf $scratch/$layer.tar") extra=(--before "tar-x=rm -rf $scratch/x; mkdir $scratch/x; sync -f $scratch")
  if up; then runners+=("docker-load=docker $load"); extra+=(--group docker-load=dockerd --before "docker-load=docker $remove"); fi
  podman_image && { runners+=("podman-load=$podman $load"); extra+=(--before "podman-load=$podman $remove"); }
  prepare_ours && { runners+=("ours-load=$ours $load"); extra+=(--before "ours-load=$ours $remove"); }
  race --title "load of a raw layer, $layer, $(($(stat -c %s "$layer.tar") >> 20)) MiB" --reference tar-x --bytes "$(stat -c %s "$layer.tar")" -n "${ROUNDS:-5}" --warmup 1 --keep 1 "${runners[@]}" "${extra[@]}"
  rm -rf "$scratch/x"
done
