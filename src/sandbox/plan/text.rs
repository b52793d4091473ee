//! The plan as text: one line for each thing done, for `--explain` and golden tests.

use super::super::bundle::Root;
use super::{CloneIds, LaunchPlan, Neighbour, Outside, Step, UserPlan};
use std::fmt;

impl fmt::Display for LaunchPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            UserPlan::Range { base } => writeln!(f, "user namespace: new, 0..65536 at {base}")?,
            UserPlan::Host => writeln!(f, "user namespace: host")?,
            UserPlan::Join { path, base } => writeln!(f, "user namespace: {}, at {base}", path.display())?,
        }
        let names: Vec<_> = self.new.iter().map(|kind| kind.name()).collect();
        writeln!(f, "new namespaces: {}", names.join(" "))?;
        for (kind, path) in &self.join {
            writeln!(f, "enter {}: {}", kind.name(), path.display())?;
        }
        if self.locked {
            writeln!(f, "attach the root and binds with the host's rights first")?;
        }
        if !self.detached {
            writeln!(f, "make mounts in a namespace of a helper")?;
        }
        if self.sealed {
            writeln!(f, "make the root again without a writable layer")?;
        }
        for (index, item) in self.outside.iter().enumerate() {
            writeln!(f, "outside {index}: {item}")?;
        }
        for step in self.early.iter().chain(&self.late) {
            writeln!(f, "{step}")?;
        }
        write!(f, "{}", self.cgroup)
    }
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("root"),
            Self::Dev => f.write_str("dev"),
            Self::HostQueues => f.write_str("the host's message queues"),
            Self::Node(device) => write!(f, "device {}", device.rule()),
            Self::OwnFile { path, readonly, of } => {
                write!(f, "copy of {}", path.display())?;
                if let Some(Neighbour { pid, target }) = of {
                    write!(f, ", or {target} of process {pid}")?;
                }
                f.write_str(if *readonly { ", read-only" } else { "" })
            }
            Self::Tree { root, path, readonly } => {
                let layers = if let Root::Overlay { lowers, .. } = root { lowers.len() } else { 0 };
                write!(f, "{path} of a tree of {layers} layers")?;
                f.write_str(if *readonly { ", read-only" } else { "" })
            }
            Self::Clone { path, recursive, ids, readonly, view } => {
                write!(f, "clone {}", path.display())?;
                f.write_str(if *recursive { " and below" } else { "" })?;
                match ids {
                    CloneIds::Same => f.write_str(", ids same")?,
                    CloneIds::Owner(uid, gid) => write!(f, ", owner {uid}:{gid}")?,
                    CloneIds::Unmapped => f.write_str(", ids unmapped")?,
                }
                f.write_str(if *readonly { ", read-only" } else { "" })?;
                f.write_str(if *view { ", as it is" } else { "" })
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dev { shm } => write!(f, "/dev, /dev/pts, /dev/shm of {shm}"),
            Self::Mqueue => f.write_str("mqueue at /dev/mqueue"),
            Self::Sys { readonly } => write!(f, "sysfs at /sys{}", if *readonly { ", read-only" } else { "" }),
            Self::Attach { outside, target } => write!(f, "attach {outside} at {target}"),
            Self::Tmpfs { target, options, attributes } => {
                let options: Vec<_> = options.iter().map(|(key, value)| format!("{key}={value}")).collect();
                write!(f, "tmpfs at {target}: {} attributes {attributes:#x}", options.join(","))
            }
            Self::Console => f.write_str("terminal at /dev/console"),
            Self::WorkingDir(path) => write!(f, "working directory {path}"),
            Self::Loopback => f.write_str("loopback up"),
            Self::Hostname(name) => write!(f, "host name {name}"),
            Self::Domainname(name) => write!(f, "domain name {name}"),
            Self::Sysctl { path, value } => write!(f, "sysctl {path} = {value}"),
            Self::Proc => f.write_str("proc at /proc"),
            Self::CgroupView => f.write_str("control groups at /sys/fs/cgroup"),
            Self::Mask(path) => write!(f, "mask {path}"),
            Self::Readonly(path) => write!(f, "read-only {path}"),
            Self::RootReadonly => f.write_str("root read-only"),
        }
    }
}
