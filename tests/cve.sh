#!/usr/bin/env bash
# Lists the tests named after known vulnerabilities (SECURITY.md explains them), then runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
. tests/lib.sh
cargo test --locked --quiet --lib --test it cve_ -- --list 2>/dev/null | sed -n 's/: test$//p' | sort
exec cargo test --locked --lib --test it cve_
