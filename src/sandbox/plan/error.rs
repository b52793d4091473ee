//! Why a bundle cannot be planned.

use std::path::PathBuf;

/// A bundle that contradicts itself or this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A namespace of another container needs that container's user namespace.
    #[error("join the {kind} namespace {path}: it belongs to another user namespace; join that one too (same range)")]
    ForeignNamespace {
        /// Kind.
        kind: &'static str,
        /// File.
        path: PathBuf,
    },
    /// A mount target under a kernel file system.
    #[error("mount at {0:?}: nothing may be mounted below /proc or /sys")]
    KernelTarget(String),
    /// A mount target that is not a plain absolute path.
    #[error("mount at {0:?}: the target must be an absolute path other than \"/\" without \"..\"")]
    BadTarget(String),
    /// A tmpfs option that is not known.
    #[error("tmpfs at {target}: unknown option {option:?}")]
    TmpfsOption {
        /// Path inside.
        target: String,
        /// Option.
        option: String,
    },
    /// A kernel parameter with an impossible name.
    #[error("sysctl {0:?}: not a kernel parameter's name")]
    Sysctl(String),
    /// A kernel parameter that no namespace has.
    #[error(
        "sysctl {0:?}: it belongs to the whole host, not to a container; known are net.*, fs.mqueue.* and kernel.{{msg*,sem,shm*}}"
    )]
    HostSysctl(String),
    /// A kernel parameter of a namespace that is the host's.
    #[error("sysctl {key:?}: the container uses the host's {kind} namespace, so it would change the host")]
    SharedSysctl {
        /// Name.
        key: String,
        /// Kind.
        kind: &'static str,
    },
    /// A value that is more than one line.
    #[error("sysctl {0:?}: the value has control characters")]
    SysctlValue(String),
    /// A limit whose controller the kernel does not offer.
    #[error("limit {limit}: there is no {controller} controller here (the kernel lacks {option}, or {missing})")]
    NoController {
        /// What was asked for.
        limit: &'static str,
        /// The controller.
        controller: &'static str,
        /// Kernel build option.
        option: &'static str,
        /// Why else it may be missing.
        missing: &'static str,
    },
    /// A limit with a value that cannot be.
    #[error("limit {limit}: {value:?} is not a valid value")]
    BadLimit {
        /// What was asked for.
        limit: &'static str,
        /// The value.
        value: String,
    },
    /// A name that is no group right below the hierarchy's.
    #[error("control group {0:?}: not a plain name")]
    CgroupPath(String),
}
