#!/usr/bin/env bash
# N idle containers: start one and eight at a time, memory of all helper processes, list, remove.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
rows=${BULKHEAD_BENCH_JSON:-$scratch/density.json}
[ -n "${BULKHEAD_BENCH_JSON:-}" ] || : > "$rows"
printf '\n## idle containers (sleep, no network)\n'
weigh() { python3 "$here/many.py" --json "$rows" -n "$n" -j "$j" "$@"; }
# One command for each container, one and eight at a time, then one command for all of them; the engines in turn, several times.
for n in ${COUNTS:-100}; do for how in ${HOWS:-1 8 all}; do for _ in $(seq "${ROUNDS:-3}"); do
  case $how in all) j=8 which='{all}' ;; *) j=$how which='m{i}' ;; esac
  up && weigh --name docker --helpers "dockerd.*$scratch|containerd.*$scratch" --start 'docker run -d --name m{i} --network none bb:1 sleep 3600' --list 'docker ps -q' --stop "docker rm -f $which"
  podman_image && weigh --name podman --helpers "conmon.*$scratch" --start "$podman run -d --name m{i} $podman_run --network none bb:1 sleep 3600" --list "$podman ps -q" --stop "$podman rm -f -t 0 $which"
  prepare_ours && weigh --name ours --helpers "^bulkhead-(shim|keeper)" --start "$ours run -d --name m{i} --network none bb:1 sleep 3600" --list "$ours ps -q" --stop "$ours rm -f $which"
done; done; done
python3 "$here/many.py" --compare "$rows"
exit 0
