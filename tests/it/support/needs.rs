//! What a test needs of the machine, and loud skips where it is missing.

use super::cache;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use super::BULKHEAD;

/// Prints why a test is skipped, past the test runner's capture; under `BULKHEAD_TEST_STRICT=1` fails instead.
pub(crate) fn skip(test: &str, why: &str) {
    assert!(
        std::env::var_os("BULKHEAD_TEST_STRICT").is_none_or(|value| value != "1"),
        "{test} may not be skipped: {why}"
    );
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}

/// Ends the test with a loud skip unless this machine has what is named:
/// `requires!(root, landlock >= 4, cgroup_v2, program "strace", image "nginx", oracle, full)`.
macro_rules! requires {
    () => {};
    (@need $check:expr, $($rest:tt)*) => {
        if let Err(why) = $check {
            $crate::support::skip($crate::support::test_name().as_str(), &why);
            return;
        }
        requires!($($rest)*);
    };
    (root $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_root(), $($($rest)*)?); };
    (landlock >= $abi:literal $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_landlock($abi), $($($rest)*)?); };
    (cgroup_v2 $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_cgroup_v2(), $($($rest)*)?); };
    (program $name:literal $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_program($name), $($($rest)*)?); };
    (image $name:literal $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_image($name), $($($rest)*)?); };
    (oracle $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_oracle(), $($($rest)*)?); };
    (full $(, $($rest:tt)*)?) => { requires!(@need $crate::support::need_full(), $($($rest)*)?); };
}
pub(crate) use requires;

pub(crate) fn need_root() -> Result<(), String> {
    if std::env::var_os("BULKHEAD_TEST_UNPRIVILEGED").is_some() {
        return Err("BULKHEAD_TEST_UNPRIVILEGED is set".to_owned());
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let root = status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"));
    if root { Ok(()) } else { Err("needs root".to_owned()) }
}

/// Landlock ABI of the running kernel; 0 without Landlock.
pub(crate) fn landlock_abi() -> i64 {
    let security = std::fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
    if let Some(abi) = bulkhead_landlock() {
        return abi;
    }
    i64::from(security.contains("landlock"))
}

fn bulkhead_landlock() -> Option<i64> {
    let output = Command::new(BULKHEAD).args(["info", "--security", "--format", "{{json .}}"]).output().ok()?;
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let layer = value["Layers"].as_array()?.iter().find(|layer| layer["Name"] == "landlock")?;
    let (_, rest) = layer["Detail"].as_str()?.split_once("ABI ")?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

pub(crate) fn need_landlock(wanted: i64) -> Result<(), String> {
    let abi = landlock_abi();
    if abi >= wanted { Ok(()) } else { Err(format!("needs Landlock ABI {wanted}, this kernel has {abi}")) }
}

pub(crate) fn need_cgroup_v2() -> Result<(), String> {
    let unified = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    if unified { Ok(()) } else { Err("needs the unified control group hierarchy (v2)".to_owned()) }
}

pub(crate) fn need_program(name: &str) -> Result<(), String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if found { Ok(()) } else { Err(format!("needs the program {name}")) }
}

pub(crate) fn need_image(name: &str) -> Result<(), String> {
    let tar = cache().join(format!("{name}.tar"));
    if tar.is_file() { Ok(()) } else { Err(format!("needs the base image {name}: run examples/images/make.sh {name}")) }
}

pub(crate) fn need_oracle() -> Result<(), String> {
    let given = std::env::var_os("BULKHEAD_TEST_DOCKER").is_some();
    if given { Ok(()) } else { Err("needs a docker engine to compare with: run tests/oracle.sh".to_owned()) }
}

pub(crate) fn need_full() -> Result<(), String> {
    let full = std::env::var_os("BULKHEAD_TEST_FULL").is_some();
    if full { Ok(()) } else { Err("long: part of `just full` (BULKHEAD_TEST_FULL=1)".to_owned()) }
}
