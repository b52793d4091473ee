#!/usr/bin/env bash
# Installs what is missing, then runs every test that `cargo test` knows. Arguments go to cargo test: `tests/run.sh --test it exec`.
# Run as root it tests the real kernel; without root those tests say that they were skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh

need iproute2=ip nftables=nft procps=/usr/bin/kill busybox-static=busybox git=git ca-certificates=/etc/ssl/certs/ca-certificates.crt
need_if_possible xz-utils=xz openssh-client=ssh-agent mmdebstrap=mmdebstrap strace=strace util-linux=nsenter jq=jq curl=curl skopeo=skopeo docker-registry=docker-registry libseccomp-dev=/usr/include/seccomp.h
need_rust

# Base images of the server tests: made once, kept outside the repository. BULKHEAD_TEST_IMAGES="" goes without, and so do the
# tests beside the code.
case " $* " in *" --test "*) ;; *" --lib "*) BULKHEAD_TEST_IMAGES="" ;; esac
if [ "$(id -u)" = 0 ] && have mmdebstrap; then
  for name in ${BULKHEAD_TEST_IMAGES-busybox python node ubuntu nginx redis postgres mariadb}; do
    examples/images/make.sh "$name" >/dev/null || say "no image $name: the tests that need it will be skipped"
  done
fi

seed=${BULKHEAD_TEST_SEED:-$(date +%s)}
export BULKHEAD_TEST_SEED=$seed
say "seed of the rotating slices: $seed (again with BULKHEAD_TEST_SEED=$seed)"
[ "$(id -u)" = 0 ] || say "not root: the tests of the real kernel will be skipped"
# With arguments of your own only what they name is run.
if [ $# -gt 0 ]; then exec cargo test --locked "$@"; fi
# A test that waits for ever must not take the words of the others with it: the limit is several times what a run needs.
exec timeout --foreground --kill-after=30 3000 cargo test --locked --lib --test it
