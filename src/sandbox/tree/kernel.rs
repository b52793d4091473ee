//! What is set in the kernel rather than mounted: the loopback interface and parameters of the new namespaces.

use super::super::error::{Context, LaunchError};
use super::super::plan::Step;
use crate::sys::open::open_no_links;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Performs a step that needs the container's namespaces and nothing of its tree.
pub(in crate::sandbox) fn network_step(step: &Step) -> Result<(), LaunchError> {
    match step {
        Step::Loopback => {
            refuse_advertisements();
            crate::sys::net::interface_up(c"lo").at(|| "bring the loopback interface up")
        }
        Step::Sysctl { path, value } => sysctl(path, value),
        _ => Ok(()),
    }
}

/// Lets no neighbour become this network namespace's router (CVE-2020-13401); nothing to do without IPv6.
fn refuse_advertisements() {
    const PLACE: &str = "/proc/sys/net/ipv6/conf";
    for entry in std::fs::read_dir(PLACE).into_iter().flatten().flatten() {
        // An interface that vanishes meanwhile has no neighbours either.
        if let Ok(file) =
            rustix::fs::open(entry.path().join("accept_ra"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
        {
            let _ = rustix::io::write(&file, b"0");
        }
    }
}

/// Writes a kernel parameter of this process's namespaces, through the host's proc.
fn sysctl(path: &str, value: &str) -> Result<(), LaunchError> {
    let what = || format!("write {value:?} to sysctl {}", path.replace('/', "."));
    let root =
        rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at(what)?;
    let file = open_no_links(root.as_fd(), path, OFlags::WRONLY).map_err(|errno| match errno {
        // Older kernels do not make net.core and others in network namespaces of user namespaces but the first.
        Errno::NOENT => LaunchError::refused(format!(
            "{}: this kernel has no such parameter in a user namespace of a container's own; it may have it with --userns=host",
            what()
        )),
        errno => LaunchError::failed(what(), errno),
    })?;
    rustix::io::write(&file, value.as_bytes()).at(what).map(drop)
}
