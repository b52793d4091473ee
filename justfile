# Names for what the scripts do; everything works without `just` too.

# Lists the recipes.
default:
    @just --list

# Builds the program that is shipped (static, LTO).
build:
    cargo build --locked --profile dist

# Format, lints, documents, dependencies.
check:
    cargo fmt --check
    cargo clippy --locked --all-targets -- -D warnings
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps
    bash tests/deny.sh

# The tests that need no privilege.
test:
    BULKHEAD_TEST_UNPRIVILEGED=1 cargo test --locked --lib --test it

# All tests, on the real kernel; run as root.
test-root *ARGS:
    bash tests/run.sh {{ARGS}}

# The tests that compare with docker; starts an engine of their own.
test-oracle:
    bash tests/oracle.sh

# The suite under the kernels Debian ships, in QEMU: `just test-guest`, `just test-guest 6.1 hardening::` (see the script).
test-guest *ARGS:
    bash tests/guest.sh {{ARGS}}

# Lists the known vulnerabilities that have a test, then runs them.
cve:
    bash tests/cve.sh

# Writes the golden texts anew from what the program says now; read the diff.
bless:
    BULKHEAD_BLESS=1 cargo test --locked --lib --test it

# Races the program against its peers (needs root; a quiet machine).
bench *ARGS:
    bash benches/run.sh {{ARGS}}

# The main job from start to end.
demo:
    bash examples/quickstart/run.sh

# What every commit must pass.
ci:
    bash .ci/run

# Everything, in parts under 60 minutes each: `just full`, or one part: `just full cycles`.
full *PARTS:
    bash tests/full.sh {{PARTS}}
