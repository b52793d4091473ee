#!/usr/bin/env bash
# `true` inside a running container.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
cd "$scratch"
runners=() extra=()
finish() {
  for peer in crun runc; do $peer --root "$run/state-$peer" delete -f sleeper >/dev/null 2>&1 || true; done
  docker rm -f sleeper >/dev/null 2>&1 || true
  $podman rm -f -t 0 sleeper >/dev/null 2>&1 || true
  have_ours && $ours rm -f sleeper >/dev/null 2>&1 || true
}
trap finish EXIT
for peer in crun runc; do
  have $peer || continue
  $peer --root "$run/state-$peer" run -d --pid-file "$scratch/pid-$peer" -b "$scratch/sleeper-$peer" sleeper </dev/null >/dev/null 2>&1
  runners+=("$peer=$peer --root $run/state-$peer exec sleeper /bin/true")
done
runners+=("nsenter=nsenter -t $(cat "$scratch/pid-crun") -m -u -i -n -p /bin/true")
engines_up
if up; then docker run -d --name sleeper --network none bb:1 sleep 3600 >/dev/null; runners+=("docker=docker exec sleeper true"); extra+=(--group docker=dockerd); fi
if podman_image; then $podman run -d --name sleeper $podman_run --network none bb:1 sleep 3600 >/dev/null; runners+=("podman=$podman exec sleeper true"); fi
if prepare_ours; then $ours run -d --name sleeper --network none bb:1 sleep 3600 >/dev/null; runners+=("ours=$ours exec sleeper true"); fi
race --title exec --reference crun -n "${ROUNDS:-32}" "${runners[@]}" "${extra[@]}"
