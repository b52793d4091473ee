#!/usr/bin/env bash
# N idle containers: start one and eight at a time, memory of all helper processes, list, remove.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
printf '\n## idle containers (sleep, no network)\n'
weigh() { python3 "$here/many.py" ${BULKHEAD_BENCH_JSON:+--json "$BULKHEAD_BENCH_JSON"} -n "$n" -j "$j" "$@"; }
for n in ${COUNTS:-100}; do for j in 1 8; do
  up && weigh --name docker --helpers "dockerd.*$scratch|containerd.*$scratch" --start 'docker run -d --name m{i} --network none bb:1 sleep 3600' --list 'docker ps -q' --stop 'docker rm -f m{i}'
  podman_image && weigh --name podman --helpers "conmon.*$scratch" --start "$podman run -d --name m{i} $podman_run --network none bb:1 sleep 3600" --list "$podman ps -q" --stop "$podman rm -f -t 0 m{i}"
  prepare_ours && weigh --name ours --helpers "^bulkhead-(shim|keeper)" --start "$ours run -d --name m{i} --network none bb:1 sleep 3600" --list "$ours ps -q" --stop "$ours rm -f m{i}"
done; done
exit 0
