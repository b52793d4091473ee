#!/usr/bin/env bash
# Everything, in parts of under 60 minutes each, with nothing allowed to be skipped where the part names what it needs.
#   tests/full.sh              all parts, then the table for TESTING.md
#   tests/full.sh PART ...     suite | cve | servers | scenarios | faults | cuts | races | cycles | oracle | fuzz | bench | guest-6.1 | guest-6.12
set -uo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
limit=3500
[ $# -gt 0 ] || set -- suite cve servers scenarios faults cuts races cycles oracle fuzz bench guest-6.1 guest-6.12
commit=$(git describe --always --dirty 2>/dev/null || echo unknown)
results=() failed=0
for part in "$@"; do
  case $part in
  suite) command=(bash .ci/run) ;;
  cve) command=(bash tests/cve.sh) ;;
  servers) command=(env BULKHEAD_TEST_STRICT=1 bash tests/run.sh --test it servers::) ;;
  scenarios) command=(env BULKHEAD_TEST_STRICT=1 BULKHEAD_TEST_FULL=1 bash tests/run.sh --test it scenarios::) ;;
  faults) command=(env BULKHEAD_TEST_FULL=1 bash tests/run.sh --test it -- faults:: disk:: --test-threads 1 --skip cycles) ;;
  cuts | races) command=(env BULKHEAD_TEST_FULL=1 bash tests/run.sh --test it "$part::" -- --test-threads 1 --nocapture) ;;
  cycles) command=(env BULKHEAD_TEST_FULL=1 bash tests/run.sh --test it cycles -- --test-threads 1) ;;
  oracle) command=(env BULKHEAD_TEST_STRICT=1 bash tests/oracle.sh) ;;
  fuzz) command=(bash tests/fuzz.sh) ;;
  bench) command=(bash benches/run.sh) ;;
  guest-*) command=(bash tests/guest.sh "${part#guest-}") ;;
  *) say "no such part: $part"; exit 2 ;;
  esac
  log=$(mktemp) started=$SECONDS
  if timeout "$limit" "${command[@]}" < /dev/null 2>&1 | tee "$log"; then result=passed; else result=FAILED; failed=1; fi
  # A filter that matches nothing proves nothing.
  if [ $result = passed ] && ! grep -qE '\b[1-9][0-9]* passed' "$log"; then say "$part: no test ran"; result='FAILED (no test ran)'; failed=1; fi
  counts=$(sed -n 's/^test result: [a-zA-Z]*\. \([0-9]* passed\); \([0-9]* failed\).*/\1, \2/p' "$log" | paste -sd ';')
  skips=$(grep -c 'SKIPPED ' "$log")
  results+=("| $part | $result | ${counts:--} | $skips | $((SECONDS - started)) s |")
  rm -f "$log"
done
printf '\ncommit %s, %s, Linux %s\n\n| part | result | counts | skipped | time |\n| --- | --- | --- | --- | --- |\n' "$commit" "$(date +%F)" "$(uname -r)"
printf '%s\n' "${results[@]}"
exit $failed
