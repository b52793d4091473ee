#!/usr/bin/env bash
# A Dockerfile of ten steps over 200 MB, as 20,000 small or 4 large files: cold, cached, one file changed.
# KINDS (small, large, huge: 4 files of 200 MB each) and BUILDERS (docker, buildkit, buildah, ours) choose some of it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
context() {
  [ ! -d "$1" ] || return 0
  python3 - "$1.new" "$2" <<'PY'
import os, sys
target, kind = sys.argv[1:]
text = b"the quick brown fox jumps over the lazy dog\n" * 120
count, size = {"small": (20000, 10_000), "large": (4, 50 << 20), "huge": (4, 200 << 20)}[kind]
for i in range(count):
    directory = f"{target}/data/d{i % 200}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/f{i}", "wb") as file:
        written = 0
        while written < size:
            part = (os.urandom(5000) + text)[: size - written]
            written += file.write(part)
with open(f"{target}/data/changing", "w") as file:
    file.write("0")
with open(f"{target}/Dockerfile", "w") as file:
    file.write("FROM bb:1\nWORKDIR /app\nENV A=1 B=2\nRUN echo one > /one\nRUN mkdir -p /srv/a && echo two > /srv/a/two\nCOPY Dockerfile /app/Dockerfile\n"
               "RUN for i in 1 2 3 4 5 6 7 8 9 10; do echo $i > /srv/a/$i; done\nCOPY data /app/data\nRUN echo done > /app/done\nLABEL x=y\nCMD [\"sh\"]\n")
PY
  mv "$1.new" "$1"
}
builders=()
if up; then
  builders+=("docker=env DOCKER_BUILDKIT=0 docker build -q")
  [ ! -x /usr/bin/docker ] || builders+=("buildkit=env DOCKER_BUILDKIT=1 /usr/bin/docker build -q")
fi
# Buildah caches only when it is asked to, and shares podman's store. Its RUN needs no network here, so it is spared making one.
if have buildah && podman_image; then
  builders+=("buildah=buildah --root $scratch/podman/root --runroot $scratch/podman/run --log-level=error bud -q --layers --network=none --ulimit nofile=1024:1024 --ulimit nproc=4096:4096")
fi
prepare_ours && builders+=("ours=$ours build -q")
wanted=${BUILDERS:-docker buildkit buildah ours}
for kind in ${KINDS:-small large}; do
  runners=() extra=()
  context "$scratch/context-$kind" $kind
  for builder in "${builders[@]}"; do
    [[ " $wanted " == *" ${builder%%=*} "* ]] || continue
    name=${builder%%=*} command=${builder#*=} copy=$scratch/context-$kind-${builder%%=*}
    rm -rf "$copy"; cp -a "$scratch/context-$kind" "$copy"
    # What the run before left in memory for the disk is no part of the next.
    for k in cold cached changed; do extra+=(--after "$name/$k=sync -f $scratch"); done
    runners+=("$name/cold=$command --no-cache -t bench-$kind-$name $copy" "$name/cached=$command -t bench-$kind-$name $copy" "$name/changed=$command -t bench-$kind-$name $copy")
    extra+=(--before "$name/changed=date +%s%N > $copy/data/changing")
    case $name in docker | buildkit) for k in cold cached changed; do extra+=(--group "$name/$k=dockerd"); done ;; esac
  done
  runners+=("stat-all=find $scratch/context-$kind -type f -size -1c" "cp-a=cp -a $scratch/context-$kind $scratch/x{i}") extra+=(--after "cp-a=rm -rf $scratch/x{i}")
  race --title "build, $kind files, $(du -sm "$scratch/context-$kind" | cut -f1) MiB" --reference cp-a -n "${ROUNDS:-3}" --warmup "${WARMUP:-1}" --keep 1 ${VERBOSE:+-v} "${runners[@]}" "${extra[@]}"
done
