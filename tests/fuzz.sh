#!/usr/bin/env bash
# Lets cargo-fuzz search for inputs that break a parser or a property of it, from the seeds of src/fuzz_tests.rs.
#   tests/fuzz.sh              every target of fuzz/targets for FUZZ_SECONDS each (default 120; 21 targets: 42 minutes)
#   tests/fuzz.sh TARGET ...   only these
# FUZZ_SANITIZER (default address) is cargo-fuzz's: `none` builds and runs faster. What is found lies in the cache directory's
# fuzz/artifacts, and the command that repeats it is printed; the corpus is kept there too, so that the next search goes on.
set -uo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
need g++=g++
need_rust
host=x86_64-unknown-linux-gnu
sanitizer=${FUZZ_SANITIZER:-address} seconds=${FUZZ_SECONDS:-120}
export PATH=$cache/cargo/bin:$PATH
if ! have cargo-fuzz; then
  say "installing cargo-fuzz into $cache/cargo"
  # The address of the sources' target, not the project's musl one: libFuzzer and the sanitizers come with gnu's.
  cargo install cargo-fuzz --locked --quiet --root "$cache/cargo" --target $host || exit 1
fi
[ $# -gt 0 ] || { set -- fuzz/targets/*.rs; set -- "${@##*/}"; set -- "${@%.rs}"; }
corpus=$cache/fuzz/corpus
BULKHEAD_FUZZ_CORPUS="$corpus" cargo test --locked --quiet --lib seeds_are_written >/dev/null || { say 'the seeds could not be written'; exit 1; }
# cargo-fuzz asks for flags that a stable compiler takes on this word only; the compiler stays the project's.
say "building for $# targets (sanitizer: $sanitizer)"
programs=$cache/fuzz/target
RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$programs cargo fuzz build --sanitizer "$sanitizer" --target $host || exit 1
passed=0 failed=0
for target in "$@"; do
  found=$cache/fuzz/artifacts/$target program=$programs/$host/release/$target
  mkdir -p "$found" "$corpus/$target"
  log=$(mktemp)
  # Slow inputs (10 s) and large ones (2 GiB) are findings as crashes are.
  if timeout $((seconds + 300)) "$program" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=16384 -print_funcs=0 \
    -artifact_prefix="$found/" -print_final_stats=1 "$corpus/$target" > "$log" 2>&1; then
    passed=$((passed + 1))
    say "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, $(sed -n 's/.*cov: \([0-9]*\).*/\1/p' "$log" | tail -1) edges, $(sed -n 's/^stat::peak_rss_mb: *//p' "$log") MiB at most"
  else
    failed=$((failed + 1))
    tail -40 "$log" >&2
    say "$target FAILED; again: $program $(ls -t "$found"/* 2>/dev/null | head -1)"
  fi
  rm -f "$log"
  # A process that was killed leaves its directory.
  rm -rf /dev/shm/bulkhead-fuzz-*
done
echo "test result: $([ $failed = 0 ] && echo ok || echo FAILED). $passed passed; $failed failed; fuzz targets, $seconds s each, sanitizer $sanitizer"
[ $failed = 0 ]
