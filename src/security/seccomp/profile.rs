//! The profile format: Docker's JSON, the OCI runtime specification's, and ours.
//!
//! *Docker: seccomp security profiles*; *OCI runtime-spec 1.2 "config-linux: Seccomp"*. Ours is Docker's plus
//! `"precedence": "first"`.

use super::SeccompError;
use serde::Deserialize;

/// Longest profile that is read, in bytes; Docker's has 20 thousand.
const MAX_TEXT: usize = 1 << 20;
/// Largest error number the kernel returns (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;
/// EPERM, the error number where a profile names none.
const EPERM: u32 = 1;

/// A profile as written.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    pub(super) default_action: ActionName,
    default_errno_ret: Option<u32>,
    arch_map: Option<Vec<ArchMap>>,
    architectures: Option<Vec<String>>,
    listener_path: Option<String>,
    syscalls: Option<Vec<Entry>>,
    #[serde(default)]
    pub(super) precedence: Precedence,
}

/// Which of several entries for one system call counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Precedence {
    /// As runc and libseccomp have it: an entry without arguments beats all with arguments, entries whose action is the
    /// default are no entries, and several conditions on one argument are alternatives.
    #[default]
    Libseccomp,
    /// The first entry that matches, all its conditions taken together.
    First,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

/// One entry of `syscalls`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    name: Option<String>,
    names: Option<Vec<String>>,
    pub(super) action: ActionName,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

/// `includes` or `excludes` of an entry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Argument {
    pub(super) index: u32,
    pub(super) value: u64,
    #[serde(default)]
    pub(super) value_two: u64,
    pub(super) op: OperatorName,
}

/// Names of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum ActionName {
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// Names of comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum OperatorName {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

impl Profile {
    /// Reads a profile.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self, SeccompError> {
        if text.len() > MAX_TEXT {
            return Err(SeccompError::TooLarge { profile: name.to_owned(), limit: MAX_TEXT });
        }
        let profile: Self =
            serde_json::from_str(text).map_err(|source| SeccompError::Parse { profile: name.to_owned(), source })?;
        if profile.listener_path.as_deref().is_some_and(|path| !path.is_empty()) {
            return Err(SeccompError::Notify);
        }
        Ok(profile)
    }

    /// Returns the verdict for known system calls that no entry names.
    pub(super) fn default_verdict(&self) -> Result<u32, SeccompError> {
        verdict(self.default_action, self.default_errno_ret)
    }

    /// Returns the entries in order.
    pub(super) fn entries(&self) -> &[Entry] {
        self.syscalls.as_deref().unwrap_or_default()
    }

    /// Returns whether the profile speaks for i386 programs too.
    pub(super) fn lists_i386(&self) -> bool {
        let i386 = |name: &String| name == "SCMP_ARCH_X86";
        let mapped = self
            .arch_map
            .iter()
            .flatten()
            .any(|map| map.architecture == "SCMP_ARCH_X86_64" && map.sub_architectures.iter().flatten().any(i386));
        mapped || self.architectures.iter().flatten().any(i386)
    }

    /// Returns every capability that an entry depends on.
    #[cfg(test)]
    pub(super) fn capability_names(&self) -> impl Iterator<Item = &str> {
        let filters = self.entries().iter().flat_map(|entry| entry.includes.iter().chain(&entry.excludes));
        filters.flat_map(|filter| filter.caps.iter().flatten()).map(String::as_str)
    }
}

impl Entry {
    /// Returns the names, in either spelling.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.name.iter().chain(self.names.iter().flatten()).map(String::as_str)
    }

    /// Returns the conditions.
    pub(super) fn arguments(&self) -> &[Argument] {
        self.args.as_deref().unwrap_or_default()
    }

    /// Returns the verdict of the entry.
    pub(super) fn verdict(&self) -> Result<u32, SeccompError> {
        verdict(self.action, self.errno_ret)
    }

    /// Returns whether the entry counts: every included capability is held, no excluded one is, and so on.
    pub(super) fn applies(&self, has: impl Fn(&str) -> bool, kernel: (u32, u32)) -> Result<bool, SeccompError> {
        let arch = |arches: &Vec<String>| arches.iter().any(|arch| arch == "amd64");
        if let Some(filter) = &self.excludes {
            let kernel = filter.kernel()?.is_some_and(|least| kernel >= least);
            let caps = filter.caps.iter().flatten().any(|name| has(name));
            let arch = filter.arches.as_ref().is_some_and(arch);
            if kernel || caps || arch {
                return Ok(false);
            }
        }
        let Some(filter) = &self.includes else {
            return Ok(true);
        };
        let kernel = filter.kernel()?.is_none_or(|least| kernel >= least);
        let caps = filter.caps.iter().flatten().all(|name| has(name));
        let arch = filter.arches.as_ref().is_none_or(|arches| arches.is_empty() || arch(arches));
        Ok(kernel && caps && arch)
    }
}

impl Filter {
    fn kernel(&self) -> Result<Option<(u32, u32)>, SeccompError> {
        let Some(text) = self.min_kernel.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let bad = || SeccompError::Kernel(text.chars().take(40).collect());
        let (major, minor) = text.split_once('.').ok_or_else(bad)?;
        Ok(Some((major.parse().map_err(|_| bad())?, minor.parse().map_err(|_| bad())?)))
    }
}

/// Encodes an action as a filter's return value.
fn verdict(action: ActionName, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = errno.unwrap_or(EPERM);
    if data > MAX_ERRNO {
        return Err(SeccompError::Errno(data));
    }
    Ok(match action {
        ActionName::KillThread => super::KILL_THREAD,
        ActionName::KillProcess => super::KILL_PROCESS,
        ActionName::Trap => super::TRAP,
        ActionName::Errno => super::ERRNO | data,
        ActionName::Trace => super::TRACE | data,
        ActionName::Allow => super::ALLOW,
        ActionName::Log => super::LOG,
        ActionName::Notify => return Err(SeccompError::Notify),
    })
}
