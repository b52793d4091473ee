#!/usr/bin/env bash
# What single steps of a build cost: cached ones, RUN beside `run`, a million ignored files, stages side by side; and the
# memory of a builder at work. MEASURES (cached ignored run stages memory) chooses some of it.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
enter "$@"
prepare
engines_up
wanted=${MEASURES:-cached ignored run stages memory}
wants() { [[ " $wanted " == *" $1 "* ]]; }
have_ours && prepare_ours || { say "ours is not built"; exit 0; }
buildkit=
if up && [ -x /usr/bin/docker ]; then buildkit="env DOCKER_BUILDKIT=1 /usr/bin/docker build -q"; fi

# Makes a context whose Dockerfile is FROM and COUNT lines, `%d` in LINE being the number of each.
steps() {
  mkdir -p "$scratch/$1"
  python3 - "$scratch/$1/Dockerfile" "$2" "$3" <<'PY'
import sys
path, count, line = sys.argv[1:]
with open(path, "w") as file:
    file.write("FROM bb:1\n" + "".join(line.replace("%d", str(i)) + "\n" for i in range(int(count))))
PY
}
runners=() extra=()
add() { # NAME FLAGS CONTEXT: a build by ours, and by BuildKit where there is one
  runners+=("ours-$1=$ours build -q $2 -t steps-$3 $scratch/$3")
  if [ -n "$buildkit" ]; then runners+=("buildkit-$1=$buildkit $2 -t steps-$3 $scratch/$3"); extra+=(--group "buildkit-$1=dockerd"); fi
}

if wants cached; then
  runners=() extra=()
  steps cached-0 0 ''; steps cached-50 50 'RUN echo %d > /n'
  add 0-steps '' cached-0; add 50-cached-steps '' cached-50
  race --title 'a build of cached steps: the difference is fifty times one step' --reference ours-50-cached-steps -n "${ROUNDS:-15}" "${runners[@]}" "${extra[@]}"
fi

if wants ignored; then
  runners=() extra=()
  steps ignored-none 1 'COPY . /all'; steps ignored-million 1 'COPY . /all'
  python3 - "$scratch/ignored-million" <<'PY'
import os, sys
top = sys.argv[1]
open(f"{top}/.dockerignore", "w").write("ignored\n")
open(f"{top}/../ignored-none/.dockerignore", "w").write("ignored\n")
done = f"{top}/ignored/999/999"
if not os.path.exists(done):
    # A file may have 65,000 names; they are files enough for whoever walks them.
    for i in range(1000):
        os.makedirs(f"{top}/ignored/{i}", exist_ok=True)
        first = f"{top}/ignored/{i - i % 50}/0"
        for j in range(1000):
            path = f"{top}/ignored/{i}/{j}"
            if path == first:
                open(path, "w").close()
            elif not os.path.exists(path):
                os.link(first, path)
PY
  add none '' ignored-none; add million '' ignored-million
  race --title '1,000,000 files behind one line of .dockerignore, all cached' --reference ours-none -n "${ROUNDS:-15}" "${runners[@]}" "${extra[@]}"
fi

if wants run; then
  runners=() extra=()
  for network in none default; do
    steps run-1 1 'RUN ["true", "%d"]'; steps run-11 11 'RUN ["true", "%d"]'
    add "1-run-$network" "--no-cache --network $network" run-1; add "11-runs-$network" "--no-cache --network $network" run-11
    kind=$network; [ $kind != default ] || kind=bridge
    runners+=("ours-container-$network=$ours run --rm --network $kind bb:1 true")
  done
  race --title 'RUN true: the difference is ten times one step; and run --rm of the same' --reference ours-container-default -n "${ROUNDS:-15}" "${runners[@]}" "${extra[@]}"
fi

if wants stages; then
  runners=() extra=()
  for kind in wait work; do
    case $kind in
      wait) line='RUN sleep 0.5 # %d' ;;
      work) line='RUN i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done # %d' ;;
    esac
    steps stages-one-$kind 1 "$line"
    steps stages-four-$kind 4 "FROM bb:1 AS s%d
$line"
    printf 'FROM scratch\nCOPY --from=s0 /etc/passwd /0\nCOPY --from=s1 /etc/passwd /1\nCOPY --from=s2 /etc/passwd /2\nCOPY --from=s3 /etc/passwd /3\n' >> "$scratch/stages-four-$kind/Dockerfile"
    add "one-$kind" --no-cache stages-one-$kind; add "four-$kind" --no-cache stages-four-$kind
  done
  race --title 'four independent stages and one of them (sleeping, and computing)' --reference ours-one-wait -n "${ROUNDS:-5}" "${runners[@]}" "${extra[@]}"
fi

# The highest resident memory of any process of ours at work on the contexts of build.sh.
if wants memory; then
  for kind in small large huge; do
    [ -d "$scratch/context-$kind" ] || continue
    python3 - "$kind" $ours build -q --no-cache -t memory "$scratch/context-$kind" <<'PY'
import resource, subprocess, sys
kind, *command = sys.argv[1:]
subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
print(f"peak memory of the builder, context {kind}: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.1f} MiB")
PY
  done
fi
