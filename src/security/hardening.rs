//! The walls of one container, as data.

use serde::{Deserialize, Serialize};

/// The walls of one container besides its namespaces and limits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hardening {
    /// Name of the level, for `inspect`.
    pub level: Level,
    /// Bounding, permitted and effective capabilities of root inside; bit N is capability number N.
    pub capabilities: CapabilitySet,
    /// Whether set-uid programs gain nothing (`no_new_privs`).
    pub no_new_privileges: bool,
    /// The seccomp filter; `None` is `--security-opt seccomp=unconfined`.
    pub seccomp: Option<SeccompFilter>,
    /// Whether Landlock rules are laid.
    pub landlock: bool,
    /// Paths covered by an empty file or directory.
    pub masked_paths: Vec<String>,
    /// Paths made read-only.
    pub readonly_paths: Vec<String>,
}

/// Hardening level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What ordinary images need.
    Default,
    /// Fewer capabilities and system calls.
    Strict,
    /// `--privileged`: host user namespace, all capabilities, no filters.
    Privileged,
}

/// A set of capabilities; bit N is capability number N of *capabilities(7)*.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySet(pub u64);

/// A compiled seccomp program: classic BPF instructions, each packed as `code << 48 | jt << 40 | jf << 32 | k`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeccompFilter {
    /// Name of the profile it was compiled from (`default`, `strict`, or a file).
    pub profile: String,
    /// The program.
    pub instructions: Vec<u64>,
}

/// What holds for a running container on this kernel; never what was wished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Enforced {
    /// `0x70000000+65536`, or `host: because --net=host`.
    pub userns: String,
    /// Namespaces that are the container's own.
    pub namespaces: Vec<String>,
    /// `default (271 allowed)`, or `none: ...`.
    pub seccomp: String,
    /// `full (ABI 7)`, `partial (ABI 7): ...`, or `none: ...`.
    pub landlock: String,
    /// Capabilities of root inside.
    pub capabilities: Vec<String>,
    /// `no_new_privs`.
    pub no_new_privileges: bool,
    /// Limits in force, `pids=2048`, `memory=...`; a controller that is missing is named.
    pub limits: Vec<String>,
    /// Whether the root is read-only.
    pub root_readonly: bool,
    /// Number of masked and of read-only paths that exist on this kernel.
    pub masked: usize,
}
