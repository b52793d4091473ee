//! The search for what a test left behind: in its own world, and on the machine when it was alone there.

use super::{BULKHEAD, Share, World, host, need_cgroup_v2, requires, test_name, wait_for};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

impl World {
    /// Removes every container, then lists what is left of this world.
    fn leftovers(&self) -> Vec<String> {
        let ids = self.bulkhead(&["ps", "-aq", "--no-trunc"]).stdout;
        for id in ids.lines() {
            self.bulkhead(&["rm", "-f", "-v", id]);
        }
        if self.netns.is_none() {
            // Its bridge and tables are in the machine's own namespace, and nobody could name them once the world is gone.
            self.bulkhead(&["network", "prune", "-f"]);
        }
        // A shim may still be on its way out for a moment.
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.look();
            if left.is_empty() || Instant::now() > end {
                return left;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything that lies below `--root` and `--run`.
    pub(crate) fn files(&self) -> BTreeSet<String> {
        let all = walk(&self.root).into_iter().chain(walk(&self.run));
        all.map(|path| path.strip_prefix(self.directory.path()).unwrap_or(&path).display().to_string()).collect()
    }

    /// Lists what of its containers is left: mounts, control groups, processes, links, files in the run directory.
    pub(crate) fn look(&self) -> Vec<String> {
        let mut left = Vec::new();
        let place = self.directory.path().to_string_lossy().into_owned();
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
            if line.contains(&place) {
                left.push(format!("mount: {line}"));
            }
        }
        let ids = self.ids.lock().expect("no panic while noting").clone();
        for group in control_groups() {
            if ids.iter().any(|id| group.contains(id.as_str())) {
                left.push(format!("control group: {group}"));
            }
        }
        if let Some(name) = &self.netns {
            left.extend(host("ip", &["netns", "pids", name]).stdout.lines().map(|pid| {
                let line =
                    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
                format!("process {pid}: {line}")
            }));
            left.extend(links(name).into_iter().filter(|link| !is_bridge(link)).map(|link| format!("link: {link}")));
        }
        for entry in walk(&self.run) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if ids.iter().any(|id| entry.to_string_lossy().contains(id.as_str())) || name == "netns" {
                left.push(format!("file: {}", entry.display()));
            }
        }
        left
    }
}

/// The default bridge may stay when its last container goes; veth ends may not.
fn is_bridge(link: &str) -> bool {
    (link.starts_with("bulkhead") || link.starts_with("bh-")) && !link.contains('@')
}

impl Drop for World {
    fn drop(&mut self) {
        let mut left = self.leftovers();
        if let Some(name) = &self.netns {
            for pid in host("ip", &["netns", "pids", name]).stdout.lines() {
                host("kill", &["-9", pid]);
            }
            host("ip", &["netns", "del", name]);
        }
        if let Share::Alone { before, .. } = &self.share {
            left.extend(machine().difference(before).map(|item| format!("on the machine: {item}")));
        }
        for line in std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().rev() {
            if let Some(target) =
                line.split(' ').nth(4).filter(|target| target.starts_with(&*self.directory.path().to_string_lossy()))
            {
                host("umount", &["-l", target]);
            }
        }
        if !left.is_empty() {
            let mut text = String::new();
            for item in &left {
                let _ = writeln!(text, "  {item}");
            }
            let _ = writeln!(std::io::stderr(), "{}: left behind:\n{text}", test_name());
            assert!(std::thread::panicking(), "{} things left behind", left.len());
        }
    }
}

/// Links of a network namespace but loopback, as `name@peer`.
fn links(netns: &str) -> Vec<String> {
    let text = host("ip", &["-n", netns, "-o", "link"]).stdout;
    let names = text.lines().filter_map(|line| line.split(": ").nth(1).map(str::to_owned));
    names.filter(|name| name != "lo").collect()
}

/// Paths of the control groups of containers: at the top of the one hierarchy (v2), or of each (v1). The one that all shims of the
/// machine share on v2 stays from the first on, with or without a shim in it.
fn control_groups() -> Vec<String> {
    let below = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("bulkhead-") && name != "bulkhead-shims" && path.is_dir()
    };
    let top: Vec<PathBuf> = below(Path::new("/sys/fs/cgroup")).collect();
    let all = top.iter().flat_map(|hierarchy| below(hierarchy)).chain(top.iter().cloned());
    all.filter(ours).map(|path| path.to_string_lossy().into_owned()).collect()
}

/// Those of them without a process. A container that starts or ends has one for a moment; one that stays belongs to nobody.
pub(crate) fn empty_groups() -> BTreeSet<String> {
    let none = |place: String| std::fs::read_to_string(place).is_ok_and(|pids| pids.is_empty());
    let empty = |group: &String| {
        ["", "/payload", "/keeper"].iter().all(|below| {
            let place = format!("{group}{below}");
            !Path::new(&place).exists() || none(format!("{place}/cgroup.procs"))
        })
    };
    control_groups().into_iter().filter(empty).collect()
}

/// Everything on this machine that a container could leave behind.
pub(super) fn machine() -> BTreeSet<String> {
    let mut items = BTreeSet::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    items.extend(
        mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .filter(|target| !target.contains("/netns"))
            .map(|target| format!("mount {target}")),
    );
    items.extend(control_groups().into_iter().map(|group| format!("control group {group}")));
    items.extend(
        host("ip", &["-o", "link"])
            .stdout
            .lines()
            .filter_map(|line| line.split(": ").nth(1))
            .filter(|name| !is_bridge(name))
            .map(|name| format!("link {name}")),
    );
    items.extend(
        host("nft", &["-a", "list", "ruleset"])
            .stdout
            .lines()
            .filter(|line| line.contains(" dport ") || line.contains("dnat"))
            .map(|rule| format!("rule {}", rule.trim())),
    );
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if program.to_string_lossy().trim_end_matches(" (deleted)") == BULKHEAD {
            items.insert(format!("process {}", entry.file_name().to_string_lossy()));
        }
    }
    items
}

fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

#[test]
fn a_world_sees_what_is_left_behind() {
    requires!(root, program "nsenter", program "ip");
    let world = World::new();
    std::fs::create_dir_all(&world.run).expect("make a directory");
    let id = "f".repeat(64);
    std::fs::create_dir_all(world.run.join(&id)).expect("make a directory");
    world.note();
    assert_eq!(world.look().len(), 1, "a run directory of a container is seen: {:?}", world.look());
    std::fs::remove_dir_all(world.run.join(&id)).expect("remove a directory");
    let name = world.netns.clone().expect("an own namespace");
    host("ip", &["-n", &name, "link", "add", "vethx", "type", "veth", "peer", "name", "vethy"]).ok();
    assert_eq!(world.look().len(), 2, "both ends of a pair are seen: {:?}", world.look());
    host("ip", &["-n", &name, "link", "del", "vethx"]).ok();
    let hierarchy = if need_cgroup_v2().is_ok() { "/sys/fs/cgroup" } else { "/sys/fs/cgroup/pids" };
    let group = Path::new(hierarchy).join(format!("bulkhead-{id}"));
    if std::fs::create_dir_all(&group).is_ok() {
        let seen = world.look();
        std::fs::remove_dir(&group).expect("remove a control group");
        assert_eq!(seen.len(), 1, "a control group is seen: {seen:?}");
    }
    let mut sleeper = world.inside("sleep").arg("60").spawn().expect("start a process");
    let seen = wait_for("the process to be inside", 5, || Some(world.look()).filter(|seen| !seen.is_empty()));
    sleeper.kill().expect("end the process");
    sleeper.wait().expect("reap the process");
    assert!(seen[0].starts_with("process "), "a process in the namespace is seen: {seen:?}");
    assert_eq!(world.look(), Vec::<String>::new());
}
