#!/usr/bin/env bash
# Starts Debian's docker engine in a network namespace of its own and runs the tests that compare with it. Arguments go to the tests.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
[ "$(id -u)" = 0 ] || { say "needs root"; exit 1; }
need docker.io=dockerd iproute2=ip util-linux=nsenter
state=$(mktemp -d /var/tmp/bulkhead-oracle.XXXXXX) netns=bulkhead-oracle-$$
groups=$(ls -d /sys/fs/cgroup/docker /sys/fs/cgroup/*/docker 2>/dev/null || true) # another engine's stay
cleanup() {
  local pid; pid=$(cat "$state/pid" 2>/dev/null || true)
  if [ -n "$pid" ]; then
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
  fi
  ip netns del "$netns" 2>/dev/null || true
  [ -n "$groups" ] || find /sys/fs/cgroup -depth -type d -path '*/docker*' -exec rmdir {} + 2>/dev/null || true
  rm -rf "$state"
}
trap cleanup EXIT
ip netns add "$netns"
ip -n "$netns" link set lo up
# Its mounts are its own too: what it leaves is gone with it. Its logs are bounded: a container that a test forgets would fill the disk.
setsid nsenter --net="/run/netns/$netns" unshare -m --propagation slave dockerd --data-root "$state/data" --exec-root "$state/exec" \
  --log-opt max-size=10m --log-opt max-file=2 -H "unix://$state/sock" -p "$state/pid" --bip 10.79.0.1/16 --default-address-pool base=10.80.0.0/16,size=24 >"$state/log" 2>&1 < /dev/null &
up() { docker -H "unix://$state/sock" info >/dev/null 2>&1; }
for _ in $(seq 150); do up && break; sleep 0.2; done
up || { say "dockerd did not come up: $(tail -n 1 "$state/log")"; exit 1; }
BULKHEAD_TEST_DOCKER=unix://$state/sock bash tests/run.sh --test it oracle_ "$@"
