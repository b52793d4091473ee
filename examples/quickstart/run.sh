#!/usr/bin/env bash
# The main job from start to end: builds bulkhead, builds a Dockerfile, runs it as a hardened container, calls its page, looks
# at it from all sides, and cleans up. Run as root (or with sudo at hand). The second run is quick.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/lib.sh
here=$PWD/examples/quickstart
port=${PORT:-8080} name=quickstart image=hello-bulkhead base=python:3.8-slim-buster

[ "$(id -u)" = 0 ] || { have sudo && exec sudo --preserve-env=HOME,PATH,BULKHEAD_ROOT,BULKHEAD_RUN,PORT bash "$here/run.sh"; say "needs root"; exit 1; }
show() { printf '\n$ %s\n' "${*/#"$BULKHEAD"/bulkhead}"; "$@"; }

say "building bulkhead"
need iproute2=ip curl=curl ca-certificates=/etc/ssl/certs/ca-certificates.crt
need_rust
cargo build --locked --quiet
BULKHEAD=$(realpath "$(binary debug)"); export BULKHEAD

# A state directory of its own unless one is given, so that nothing of yours is touched.
export BULKHEAD_ROOT=${BULKHEAD_ROOT:-$cache/quickstart} BULKHEAD_RUN=${BULKHEAD_RUN:-/run/bulkhead-quickstart}
pip_settings=$(mktemp)
cleanup() {
  "$BULKHEAD" rm -f -v "$name" >/dev/null 2>&1 || true
  "$BULKHEAD" network prune -f >/dev/null 2>&1 || true
  rm -f "$pip_settings"
}
trap cleanup EXIT
"$BULKHEAD" rm -f -v "$name" >/dev/null 2>&1 || true

if ! "$BULKHEAD" image inspect "$base" >/dev/null 2>&1 && ! "$BULKHEAD" pull "$base" 2>/dev/null; then
  say "no registry answers: making $base from distribution packages"
  need mmdebstrap=mmdebstrap
  examples/images/make.sh --import python
fi

# What pip needs to reach its index from here: read from this machine at run time, mounted for the build only, in no layer.
settings=(-v "/etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:ro")
[ ! -f /etc/pip.conf ] || settings+=(-v "/etc/pip.conf:/etc/pip.conf:ro")
for option in INDEX_URL EXTRA_INDEX_URL TRUSTED_HOST PROXY; do
  variable=PIP_$option key=${option,,}
  [ -z "${!variable:-}" ] || printf '%s = %s\n' "${key//_/-}" "${!variable}"
done > "$pip_settings"
if [ -s "$pip_settings" ]; then
  sed -i '1i [global]' "$pip_settings"
  chmod 644 "$pip_settings"
  settings+=(-v "$pip_settings:/root/.config/pip/pip.conf:ro")
elif [ -f "$HOME/.config/pip/pip.conf" ]; then
  settings+=(-v "$HOME/.config/pip/pip.conf:/root/.config/pip/pip.conf:ro")
fi
for variable in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
  [ -z "${!variable:-}" ] || settings+=(--build-arg "$variable=${!variable}")
done

show "$BULKHEAD" build "${settings[@]}" -t "$image" "$here"
show "$BULKHEAD" images
show "$BULKHEAD" run -d -p "$port:80" --name "$name" "$image"

for _ in $(seq 100); do page=$(curl -fsS --noproxy '*' "http://127.0.0.1:$port/" 2>/dev/null) && break; sleep 0.1; done
printf '\n$ curl http://127.0.0.1:%s/\n%s\n' "$port" "${page:?the page did not answer within 10 seconds}"

show "$BULKHEAD" ps
show "$BULKHEAD" logs --tail 5 "$name"
show "$BULKHEAD" exec "$name" python -c 'import os; print("inside, process", os.getpid(), "of", sorted(p for p in os.listdir("/proc") if p.isdigit()))'
show "$BULKHEAD" inspect --format '{{.State.Status}} {{.NetworkSettings.IPAddress}} {{json .Config.Cmd}}' "$name"
show "$BULKHEAD" inspect --format '{{json .Enforced}}' "$name"
show "$BULKHEAD" info --security
show "$BULKHEAD" stop --time 2 "$name" # as process 1 python does not heed the stop signal, so it is killed after that time
show "$BULKHEAD" rm "$name"
say "done in $SECONDS s; the images stay in $BULKHEAD_ROOT (remove that directory to forget them)"
