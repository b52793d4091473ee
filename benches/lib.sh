# Sourced by the suites: a scratch directory, a network namespace of its own, a root directory and bundles for the peers.
# shellcheck shell=bash
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
scratch=${BULKHEAD_BENCH_DIR:-/tmp/bulkhead-bench}
netns=${BULKHEAD_BENCH_NETNS:-bulkhead-bench}
export DOCKER_HOST=unix://$scratch/docker/sock
seccomp=${BULKHEAD_BENCH_SECCOMP:-/usr/share/containers/seccomp.json}
BULKHEAD=${BULKHEAD:-$here/../${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-musl/dist/bulkhead}
# What dies with a boot lies on a tmpfs for everybody, as /run does on any Debian.
run=$scratch/run
ours="$BULKHEAD --root $scratch/ours --run $run/ours"
podman="podman --root $scratch/podman/root --runroot $run/podman --cgroup-manager=cgroupfs --events-backend=none --log-level=error"
# Podman wants to raise hard limits, which a machine may not allow it.
podman_run="--ulimit nofile=1024:1024 --ulimit nproc=4096:4096"

say() { printf 'bench: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }
have_ours() { [ -x "$BULKHEAD" ]; }
race() { python3 "$here/race.py" ${BULKHEAD_BENCH_JSON:+--json "$BULKHEAD_BENCH_JSON"} "$@"; }

# Runs the script again in a network namespace of its own (another engine on the host would meddle with ours), and in a mount
# namespace without the unified hierarchy where the layout is hybrid (crun and podman refuse that one).
enter() {
  [ -z "${BULKHEAD_BENCH_INSIDE:-}" ] || return 0
  [ "$(id -u)" = 0 ] || { say "needs root"; exit 1; }
  export BULKHEAD_BENCH_INSIDE=1
  mkdir -p "$run"
  mountpoint -q "$run" || mount -t tmpfs -o mode=0755 tmpfs "$run"
  if [ ! -e "/run/netns/$netns" ]; then ip netns add "$netns"; ip -n "$netns" link set lo up; fi
  local hide='if mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi; exec "$@"'
  exec nsenter --net="/run/netns/$netns" unshare -m --propagation slave bash -c "$hide" x bash "$0" "$@"
}

# A busybox root, the C floor, one bundle per peer.
prepare() {
  mkdir -p "$scratch"/{rootfs,floor/{up,work,merged}}
  if [ ! -x "$scratch/rootfs/bin/busybox" ]; then
    tar -C "$scratch/rootfs" -xf "$("$here/../examples/images/make.sh" busybox)"
  fi
  if [ "$here/floor.c" -nt "$scratch/floor/floor" ]; then
    musl-gcc -O2 -static -Wall -idirafter /usr/include -idirafter /usr/include/x86_64-linux-gnu -o "$scratch/floor/floor" "$here/floor.c"
  fi
  local peer
  for peer in crun runc; do
    have $peer || continue
    python3 "$here/bundle.py" "$scratch/bundle-$peer" "$scratch/rootfs" --cgroup "/bench-$peer" --seccomp "$seccomp" --limits
    python3 "$here/bundle.py" "$scratch/sleeper-$peer" "$scratch/rootfs" --cgroup "/bench-sleeper-$peer" --seccomp "$seccomp" --limits --args /bin/sleep 3600
  done
}

# The busybox image for ours.
prepare_ours() {
  have_ours || return 1
  $ours image inspect bb:1 >/dev/null 2>&1 || $ours import --change 'CMD ["sh"]' "$("$here/../examples/images/make.sh" busybox)" bb:1 >/dev/null
}

up() { docker info >/dev/null 2>&1; }

# A Debian docker engine whose data, sockets and processor time are under our control; `engines_down` ends it.
engines_up() {
  up && return 0
  have dockerd || { say "no dockerd: going on without"; return 0; }
  mkdir -p "$scratch/docker"
  sysctl -qw net.ipv4.ip_forward=1
  local group=/sys/fs/cgroup/cpuacct/race-dockerd
  mkdir -p $group 2>/dev/null || group=
  ulimit -n 20000 2>/dev/null || true
  setsid bash -c '[ -z "$1" ] || echo $$ > "$1/cgroup.procs"; shift; exec dockerd "$@"' x "$group" --data-root "$scratch/docker/data" --exec-root "$run/docker" \
    -H "$DOCKER_HOST" -p "$scratch/docker/pid" --bip 10.77.0.1/16 --default-address-pool base=10.78.0.0/16,size=24 --insecure-registry 127.0.0.0/8 >"$scratch/docker/log" 2>&1 < /dev/null &
  for _ in $(seq 100); do up && break; sleep 0.2; done
  up || { say "dockerd did not come up: $(tail -n 1 "$scratch/docker/log")"; return 0; }
  local tar; tar=$("$here/../examples/images/make.sh" busybox)
  docker image inspect bb:1 >/dev/null 2>&1 || docker import --change 'CMD ["sh"]' "$tar" bb:1 >/dev/null
}

podman_image() {
  have podman || return 1
  $podman image exists bb:1 2>/dev/null || $podman import --change 'CMD ["sh"]' "$("$here/../examples/images/make.sh" busybox)" bb:1 >/dev/null 2>&1
}

engines_down() {
  if [ -s "$scratch/docker/pid" ]; then
    local pid; pid=$(cat "$scratch/docker/pid")
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 100); do [ -e "/proc/$pid" ] || break; sleep 0.1; done
    rm -f "$scratch/docker/pid"
  fi
  rmdir /sys/fs/cgroup/cpuacct/race-* 2>/dev/null || true
  ip netns del "$netns" 2>/dev/null || true
}

# Fills the directory `layer` of the scratch directory: `big` with MB megabytes of this machine's own files, `small` with 20,000
# files of 3 kB.
fill_layer() {
  rm -rf "$scratch/layer"
  python3 - "$scratch/layer" "$1" "${MB:-500}" <<'PY'
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

# Makes `$1.tar` of such a layer and an archive of an image of it, `$1.docker.tar`, where they are not there yet.
layer_archive() {
  [ ! -s "$1.docker.tar" ] || return 0
  fill_layer "$1"
  tar -C layer -cf "$1.tar" .
  rm -rf layer
  local digest; digest=$(sha256sum "$1.tar" | cut -d' ' -f1)
  printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"bench"}]}' "$digest" > config.json
  printf '[{"Config":"config.json","RepoTags":["%s:1"],"Layers":["%s.tar"]}]' "$1" "$1" > manifest.json
  tar -cf "$1.docker.tar" manifest.json config.json "$1.tar"
}
