#!/usr/bin/env bash
# Pull and push of one layer of MB megabytes of this machine's own files (gzip and zstd) from and to Debian's docker-registry on
# loopback, against docker and podman. Before each pull all images of the layer are removed (those of the suite `layers`, too), before
# each push the registry's blobs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
have docker-registry && have skopeo || { say "no docker-registry or no skopeo: nothing to pull from"; exit 0; }
cd "$scratch"
host=127.0.0.1:5050

layer_archive big
mkdir -p registry
printf 'version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s/registry}, delete: {enabled: true}, cache: {}}\nhttp: {addr: %s}\n' "$scratch" "$host" > registry.yml
docker-registry serve registry.yml > registry.log 2>&1 < /dev/null & registry=$!
trap 'kill $registry 2>/dev/null || true' EXIT
for _ in $(seq 100); do curl -s -o /dev/null "http://$host/v2/" && break; sleep 0.1; done
seed() { [ -e "registry/docker/registry/v2/repositories/$1" ] || skopeo copy -q --insecure-policy --dest-tls-verify=false --dest-compress --dest-compress-format "$2" --format "$3" docker-archive:big.docker.tar "docker://$host/$1:1"; }
seed gzip gzip v2s2
seed zstd zstd oci
bytes=$(stat -c %s big.tar)
insecure=--tls-verify=false

runners=() extra=()
if up; then runners+=("docker-gzip=docker pull -q $host/gzip:1"); extra+=(--group docker-gzip=dockerd --before "docker-gzip=docker rmi -f $host/gzip:1 big:1 2>/dev/null; sync -f $scratch"); fi
for kind in gzip zstd; do
  podman_image && { runners+=("podman-$kind=$podman pull -q $insecure $host/$kind:1"); extra+=(--before "podman-$kind=$podman rmi -f $host/gzip:1 $host/zstd:1 localhost/big:1 2>/dev/null; sync -f $scratch"); }
  prepare_ours && { runners+=("ours-$kind=$ours pull -q $host/$kind:1"); extra+=(--before "ours-$kind=$ours rmi -f $host/gzip:1 $host/zstd:1 big:1 2>/dev/null; sync -f $scratch"); }
done
reference=docker-gzip; up || reference=podman-gzip
race --title "pull of one layer, $((bytes >> 20)) MiB" --reference $reference --bytes "$bytes" -n "${ROUNDS:-5}" --warmup "${WARMUP:-1}" --keep 1 "${runners[@]}" "${extra[@]}"

# A registry that has none of it: blobs and their links go, and so does what the pushers remember of earlier pushes.
empty="rm -rf $scratch/registry/docker/registry/v2/repositories/push $scratch/registry/docker/registry/v2/blobs; rm -f $scratch/ours/snapshots/*/pushed.json; sync -f $scratch"
runners=() extra=()
if up; then
  docker load -q -i big.docker.tar > /dev/null
  # Under a new id docker does not know that it has pushed the layer before.
  runners+=("docker-gzip=docker push -q $host/push:1"); extra+=(--group docker-gzip=dockerd --before "docker-gzip=$empty; docker tag big:1 $host/push:1")
fi
if podman_image; then
  $podman load -q -i big.docker.tar > /dev/null
  runners+=("podman-gzip=$podman push -q $insecure localhost/big:1 docker://$host/push:1"); extra+=(--before "podman-gzip=$empty")
fi
if prepare_ours; then
  $ours load -q -i big.docker.tar > /dev/null
  $ours tag big:1 $host/push:1
  for kind in gzip zstd; do runners+=("ours-$kind=$ours push -q --compression-format $kind $host/push:1"); extra+=(--before "ours-$kind=$empty"); done
fi
race --title "push of one layer, $((bytes >> 20)) MiB" --reference $reference --bytes "$bytes" -n "${ROUNDS:-3}" --warmup "${WARMUP:-1}" --keep 1 "${runners[@]}" "${extra[@]}"
# The pushes have taken the blobs that the pulls want next time.
rm -rf registry
