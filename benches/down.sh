#!/usr/bin/env bash
# Ends what the suites started and removes their scratch directory (KEEP=1 leaves it).
set -uo pipefail
. "$(dirname "$0")/lib.sh"
have_ours && for id in $($ours ps -aq 2>/dev/null); do $ours rm -f -v "$id" >/dev/null 2>&1; done
engines_down
for mount in $(awk -v at="$scratch/" 'index($5, at) == 1 {print $5}' /proc/self/mountinfo | sort -r); do umount -l "$mount"; done
rmdir /sys/fs/cgroup/*/bench-* 2>/dev/null
[ -n "${KEEP:-}" ] || rm -rf "$scratch"
exit 0
