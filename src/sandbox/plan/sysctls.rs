//! Kernel parameters: which of them a container may set, by the namespace that owns each.

use super::super::bundle::{Bundle, Namespace, Namespaces};
use super::{PlanError, Step};

/// Parameters that belong to an ipc namespace (*namespaces(7)*), besides `fs/mqueue`.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/auto_msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

/// Returns the steps that set the bundle's parameters, once the namespaces are there.
pub(super) fn sysctls(bundle: &Bundle) -> Result<Vec<Step>, PlanError> {
    let mut steps = Vec::new();
    for (key, value) in &bundle.sysctls {
        let path = sysctl_path(key, &bundle.namespaces)?;
        if value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(PlanError::SysctlValue(key.clone()));
        }
        steps.push(Step::Sysctl { path, value: value.clone() });
    }
    Ok(steps)
}

/// Turns a parameter's name into its path, if it belongs to a namespace the container does not share: everything else is
/// the host's (CVE-2022-0811).
fn sysctl_path(key: &str, namespaces: &Namespaces) -> Result<String, PlanError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '_' | '-');
    let path = if key.contains('/') { key.to_owned() } else { key.replace('.', "/") };
    if !key.chars().all(plain) || path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return Err(PlanError::Sysctl(key.to_owned()));
    }
    let (namespace, kind) = match path.as_str() {
        path if path.starts_with("net/") => (&namespaces.net, "network"),
        path if path.starts_with("fs/mqueue/") || IPC_SYSCTLS.contains(&path) => (&namespaces.ipc, "ipc"),
        "kernel/hostname" | "kernel/domainname" => (&namespaces.uts, "uts"),
        _ => return Err(PlanError::HostSysctl(key.to_owned())),
    };
    if *namespace == Namespace::Host {
        return Err(PlanError::SharedSysctl { key: key.to_owned(), kind });
    }
    Ok(path)
}
