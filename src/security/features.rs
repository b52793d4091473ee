//! What the host's kernel offers, in a few system calls.

use crate::sys;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Read;
use std::path::PathBuf;

/// What the host's kernel offers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFeatures {
    /// Release string of the kernel, `6.18.44`.
    pub release: String,
    /// Its first two numbers.
    pub kernel: (u32, u32),
    /// Landlock ABI version; 0 is none.
    pub landlock_abi: u32,
    /// Seccomp filters with the kill-process action.
    pub seccomp: bool,
    /// Number of user namespaces the limit allows; `None` when the kernel has no user namespaces.
    pub user_namespaces: Option<u64>,
    /// Time namespaces (5.6).
    pub time_namespace: bool,
    /// Control group namespaces (4.6).
    pub cgroup_namespace: bool,
    /// Whether the kernel has the overlay file system; a module is loaded for the answer, as mounting it would.
    pub overlay: bool,
    /// Whether overlay takes layers of detached mounts (6.15).
    pub detached_layers: bool,
    /// Control groups.
    pub cgroups: CgroupLayout,
}

/// How control groups are mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLayout {
    /// Version 1 hierarchies with a controller, one entry per mount point.
    pub v1: Vec<CgroupMount>,
    /// The unified hierarchy; beside version 1 it often has no controller.
    pub v2: Option<CgroupMount>,
}

/// One mounted control group hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMount {
    /// Where it is mounted.
    pub path: PathBuf,
    /// Its controllers.
    pub controllers: Vec<String>,
}

/// Controllers of version 1, to tell them from the other words of a mount's options.
const V1_CONTROLLERS: [&str; 13] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
];

/// Oldest kernel on which overlay layers can be idmapped.
pub const IDMAPPED_LAYERS: (u32, u32) = (5, 19);

/// Returns the first two numbers of the running kernel's release.
pub fn kernel_version() -> (u32, u32) {
    parse_release(&rustix::system::uname().release().to_string_lossy())
}

impl HostFeatures {
    /// Asks the kernel; what cannot be found out counts as absent.
    pub fn probe() -> Self {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        let read = |path: &str| read(path).unwrap_or_default();
        let exists = |path: &str| rustix::fs::access(path, rustix::fs::Access::EXISTS).is_ok();
        let mounts = read("/proc/self/mountinfo");
        let controllers = |path: &str| read(&format!("{path}/cgroup.controllers"));
        Self {
            kernel: parse_release(&release),
            release,
            landlock_abi: sys::landlock_abi(),
            seccomp: sys::seccomp::available(),
            user_namespaces: exists("/proc/self/ns/user")
                .then(|| read("/proc/sys/user/max_user_namespaces").trim().parse().unwrap_or(0)),
            time_namespace: exists("/proc/self/ns/time"),
            cgroup_namespace: exists("/proc/self/ns/cgroup"),
            // Asking for it takes a right, the list takes longer.
            overlay: sys::probe::has_file_system("overlay")
                || read("/proc/filesystems").lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay"),
            detached_layers: sys::probe::detached_layers(),
            cgroups: parse_cgroups(&mounts, controllers),
        }
    }

    /// Returns whether layers and volumes can be mapped to a container's ids.
    pub fn idmapped_mounts(&self) -> bool {
        self.kernel >= IDMAPPED_LAYERS
    }
}

impl CgroupLayout {
    /// Returns the hierarchy that has a controller, and whether it is of version 2.
    pub fn controller(&self, name: &str) -> Option<(&CgroupMount, bool)> {
        let has = |mount: &&CgroupMount| mount.controllers.iter().any(|controller| controller == name);
        let unified = self.v2.as_ref().filter(has).map(|mount| (mount, true));
        unified.or_else(|| self.v1.iter().find(has).map(|mount| (mount, false)))
    }

    /// Returns `v1`, `v2`, `hybrid` or `none`.
    pub fn version(&self) -> &'static str {
        match (self.v1.is_empty(), self.v2.is_some()) {
            (true, true) => "v2",
            (true, false) => "none",
            (false, true) => "hybrid",
            (false, false) => "v1",
        }
    }
}

/// Reads a file of the kernel's; these say that they are empty, so room is made beforehand.
fn read(path: &str) -> std::io::Result<String> {
    let mut text = String::with_capacity(8192);
    fs::File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Reads the first two numbers of a release; 0 where there is none.
fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|character: char| !character.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Finds the control group hierarchies in a *proc_pid_mountinfo(5)* text; `unified` reads the controllers of the version 2
/// hierarchy mounted at a path.
pub(super) fn parse_cgroups(mountinfo: &str, unified: impl Fn(&str) -> String) -> CgroupLayout {
    let mut layout = CgroupLayout::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let kind = right.next().unwrap_or_default();
        let Some(point) = left.split(' ').nth(4) else {
            continue;
        };
        let path = unescape(point);
        if kind == "cgroup2" && layout.v2.is_none() {
            let controllers = unified(&path).split_whitespace().map(str::to_owned).collect();
            layout.v2 = Some(CgroupMount { path: path.into(), controllers });
        } else if kind == "cgroup" {
            let options = right.nth(1).unwrap_or_default();
            let controllers: Vec<String> =
                options.split(',').filter(|word| V1_CONTROLLERS.contains(word)).map(str::to_owned).collect();
            let known = |mount: &CgroupMount| mount.controllers == controllers;
            if !controllers.is_empty() && !layout.v1.iter().any(known) {
                layout.v1.push(CgroupMount { path: path.into(), controllers });
            }
        }
    }
    layout
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(path: &str) -> String {
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// State of one layer of defence on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureState {
    /// Works in full.
    Active,
    /// Works in part.
    Degraded,
    /// Does not work.
    Absent,
}

impl FeatureState {
    /// Returns `active`, `degraded` or `absent`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Absent => "absent",
        }
    }
}

/// One line of `info --security`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureLine {
    /// Name of the layer.
    pub name: &'static str,
    /// Its state.
    pub state: FeatureState,
    /// What there is, or the kernel option or version that is needed.
    pub detail: String,
}

/// Tells each layer's state on a host, in a fixed order.
pub fn report(features: &HostFeatures) -> Vec<FeatureLine> {
    use FeatureState::{Absent, Active};
    let line = |name, state, detail: &str| FeatureLine { name, state, detail: detail.to_owned() };
    let switch = |name, present: bool, good: &str, bad: &str| {
        if present { line(name, Active, good) } else { line(name, Absent, bad) }
    };
    vec![
        match features.user_namespaces {
            Some(0) => line("userns", Absent, "user.max_user_namespaces is 0"),
            Some(limit) => {
                line("userns", Active, &format!("a range of 65536 ids per container, at most {limit} at once"))
            }
            None => line("userns", Absent, "needs CONFIG_USER_NS"),
        },
        switch(
            "idmapped mounts",
            features.idmapped_mounts(),
            "layers and volumes keep their owners on disk",
            "overlay layers need Linux 5.19",
        ),
        switch("seccomp", features.seccomp, "filters with kill-process", "needs CONFIG_SECCOMP_FILTER and Linux 4.14"),
        landlock_line(features.landlock_abi),
        switch("cgroup namespace", features.cgroup_namespace, "own view of control groups", "needs Linux 4.6"),
        switch("time namespace", features.time_namespace, "own clocks", "needs CONFIG_TIME_NS and Linux 5.6"),
        switch("overlay", features.overlay, "registered", "needs CONFIG_OVERLAY_FS, or its module"),
        cgroup_line(&features.cgroups),
        if features.detached_layers {
            line("mount descriptors", Active, "detached overlay layers, open_tree_attr")
        } else {
            line("mount descriptors", Active, "by way of a mount namespace of a helper (detached layers: Linux 6.15)")
        },
    ]
}

fn landlock_line(abi: u32) -> FeatureLine {
    let (state, detail) = match abi {
        0 => (
            FeatureState::Absent,
            "needs CONFIG_SECURITY_LANDLOCK and `landlock` in the lsm= list (Linux 5.13)".to_owned(),
        ),
        1 => (FeatureState::Absent, "ABI 1: renames across directories would fail; needs Linux 5.19".to_owned()),
        2 => (FeatureState::Degraded, "ABI 2: no truncation (6.2), device ioctls (6.10), scopes (6.12)".to_owned()),
        3 | 4 => (FeatureState::Degraded, format!("ABI {abi}: no device ioctls (6.10), scopes (6.12)")),
        5 => (FeatureState::Degraded, "ABI 5: no scopes (6.12)".to_owned()),
        _ => (FeatureState::Active, format!("ABI {abi}")),
    };
    FeatureLine { name: "landlock", state, detail }
}

fn cgroup_line(layout: &CgroupLayout) -> FeatureLine {
    let missing: Vec<&str> =
        ["memory", "cpu", "cpuset", "pids"].into_iter().filter(|name| layout.controller(name).is_none()).collect();
    let (state, detail) = match missing.len() {
        0 => (FeatureState::Active, layout.version().to_owned()),
        4 => (FeatureState::Absent, format!("{}: no controller is mounted", layout.version())),
        _ => (FeatureState::Degraded, format!("{}: without {}", layout.version(), missing.join(", "))),
    };
    FeatureLine { name: "cgroups", state, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 / /odd\\040place/memory rw - cgroup cgroup rw,memory
35 30 0:30 / /again/memory rw - cgroup cgroup rw,memory
broken line
36 30 0:31 / - cgroup";

    fn host() -> HostFeatures {
        HostFeatures {
            release: "6.18.1-x".to_owned(),
            kernel: (6, 18),
            landlock_abi: 7,
            seccomp: true,
            user_namespaces: Some(100),
            time_namespace: true,
            cgroup_namespace: true,
            overlay: true,
            detached_layers: true,
            cgroups: parse_cgroups(HYBRID, |_| "hugetlb".to_owned()),
        }
    }

    #[test]
    fn releases_are_read_to_two_numbers() {
        for (release, expected) in
            [("6.18.44-fc-v6", (6, 18)), ("5.4", (5, 4)), ("7-rc1", (7, 0)), ("x", (0, 0)), ("", (0, 0))]
        {
            assert_eq!(parse_release(release), expected, "{release}");
        }
        assert_eq!(parse_release("99999999999.1"), (0, 1));
    }

    #[test]
    fn hierarchies_are_found_once_each() {
        let layout = parse_cgroups(HYBRID, |path| {
            assert_eq!(path, "/sys/fs/cgroup/unified");
            "hugetlb\n".to_owned()
        });
        assert_eq!(layout.version(), "hybrid");
        assert_eq!(layout.v1.len(), 2);
        let (memory, unified) = layout.controller("memory").unwrap();
        assert_eq!((memory.path.to_str().unwrap(), unified), ("/odd place/memory", false));
        assert!(layout.controller("hugetlb").unwrap().1);
        assert!(layout.controller("pids").is_none());
        assert_eq!(parse_cgroups("", |_| String::new()).version(), "none");
        assert_eq!(parse_cgroups("1 1 0:1 / /c rw - cgroup2 c rw", |_| String::new()).version(), "v2");
    }

    #[test]
    fn the_report_names_what_is_needed() {
        let text = |features: &HostFeatures| {
            report(features)
                .iter()
                .map(|line| format!("{}: {} ({})\n", line.name, line.state.as_str(), line.detail))
                .collect::<String>()
        };
        let good = text(&host());
        assert!(good.contains("userns: active") && good.contains("landlock: active (ABI 7)"), "{good}");
        assert!(good.contains("cgroups: degraded (hybrid: without cpuset, pids)"), "{good}");
        let bare = HostFeatures {
            kernel: (5, 4),
            landlock_abi: 0,
            seccomp: false,
            user_namespaces: None,
            time_namespace: false,
            overlay: false,
            detached_layers: false,
            cgroups: CgroupLayout::default(),
            ..host()
        };
        let bad = text(&bare);
        for needed in [
            "CONFIG_USER_NS",
            "Linux 5.19",
            "CONFIG_SECCOMP_FILTER",
            "CONFIG_SECURITY_LANDLOCK",
            "CONFIG_OVERLAY_FS",
            "CONFIG_TIME_NS",
        ] {
            assert!(bad.contains(needed), "{needed} in {bad}");
        }
        assert_eq!(bad.matches(": active").count(), 2, "{bad}");
    }

    #[test]
    fn the_running_kernel_is_probed_quickly() {
        let features = HostFeatures::probe();
        assert!(features.kernel.0 >= 4);
        assert!(features.seccomp);
        // Each start waits for it. The quickest of several counts: other tests run beside this one, and kernels are emulated.
        let quickest = (0..10).map(|_| {
            let start = std::time::Instant::now();
            HostFeatures::probe();
            start.elapsed()
        });
        let quickest = quickest.min().unwrap();
        assert!(quickest < std::time::Duration::from_millis(20), "{quickest:?}");
    }
}
