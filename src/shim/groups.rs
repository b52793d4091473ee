//! Leaving the control groups of whoever started us, so that a session's end, a foreign container's limits or its
//! freezer do not reach the shim. A group that cannot be left is not worth a failed start.

use rustix::fs::{Mode, OFlags};

/// Where control groups are mounted.
const MOUNT: &str = "/sys/fs/cgroup";
/// The shims' own group on the unified hierarchy, where only leaves may hold processes.
const SHIMS: &str = "bulkhead-shims";

/// Leaves the version 1 groups for the root ones.
///
/// Writing `0` to `tasks` moves the calling thread alone and so skips the kernel's wait of milliseconds.
pub(super) fn leave_v1() {
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return };
    for controllers in foreign(&groups).filter(|controllers| !controllers.is_empty()) {
        let name = controllers.strip_prefix("name=").unwrap_or(controllers);
        write_zero(&format!("{MOUNT}/{name}/tasks"));
    }
}

/// Leaves the unified hierarchy's group. It costs milliseconds, so it is done after the container runs.
pub(super) fn leave_v2() {
    let Ok(groups) = std::fs::read_to_string("/proc/self/cgroup") else { return };
    if !foreign(&groups).any(str::is_empty) {
        return;
    }
    for mount in [MOUNT, "/sys/fs/cgroup/unified"] {
        if std::path::Path::new(mount).join("cgroup.procs").exists() {
            let group = format!("{mount}/{SHIMS}");
            // It is there from the first shim on.
            let _ = rustix::fs::mkdir(&group, Mode::from_raw_mode(0o755));
            write_zero(&format!("{group}/cgroup.procs"));
        }
    }
}

fn write_zero(path: &str) {
    if let Ok(file) = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, b"0");
    }
}

/// Returns the hierarchies of a `/proc/self/cgroup` (*cgroups(7)*) in which the process is not in the root group; the
/// unified one has an empty name.
fn foreign(text: &str) -> impl Iterator<Item = &str> {
    let group = |line| {
        let mut parts = str::splitn(line, 3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    };
    text.lines().filter_map(group).filter(|(_, path)| *path != "/").map(|(controllers, _)| controllers)
}

#[cfg(test)]
mod tests {
    use super::foreign;

    #[test]
    fn groups_that_are_not_the_root_are_foreign() {
        let text = "5:memory:/user.slice\n4:cpu,cpuacct:/\n3:name=systemd:/a:b\n0::/user.slice\nrubbish\n";
        assert_eq!(foreign(text).collect::<Vec<_>>(), ["memory", "name=systemd", ""]);
        assert_eq!(foreign("1:cpu:/\n0::/\n").count(), 0);
    }
}
