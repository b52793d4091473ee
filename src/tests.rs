//! What the tests beside the code share: skips that are seen.

use std::io::Write as _;

/// Says past the test runner's capture why the running test is skipped; `BULKHEAD_TEST_STRICT=1` makes it a failure.
pub(crate) fn skip(why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var_os("BULKHEAD_TEST_STRICT").is_none_or(|v| v != "1"), "{test} may not be skipped: {why}");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Whether this test may change namespaces, owners and mounts; says the skip when not.
pub(crate) fn root() -> bool {
    let root = rustix::process::geteuid().is_root() && std::env::var_os("BULKHEAD_TEST_UNPRIVILEGED").is_none();
    if !root {
        skip("needs root");
    }
    root
}
