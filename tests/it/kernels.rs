//! What differs from kernel to kernel, done the way of an older one on this one. `tests/guest.sh` runs the whole suite under
//! kernels that really are older.

use crate::support::bundle::{Box, Live, alone, launch_on};
use crate::support::{World, host, requires};
use bulkhead::sandbox::*;
use bulkhead::security::HostFeatures;

#[test]
fn the_mounts_of_older_kernels_are_the_same() {
    alone("kernels::the_mounts_of_older_kernels_are_the_same", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "echo x > /made; stat -c '%n %u %a %t:%T' / /plain /made /dev/g; \
            grep -c . /proc/mounts; grep -c ' / overlay .*nodev.*volatile' /proc/mounts",
        ]);
        bundle.devices = vec![Device {
            target: "/dev/g".to_owned(),
            block: true,
            number: (7, 3),
            mode: 0o640,
            owner: (0, 6),
            access: "rw".to_owned(),
        }];
        let seen = |detached_layers| {
            let host = HostFeatures { detached_layers, ..Launch::look().clone() };
            launch_on(&bundle, &host).map_or_else(|error| (-1, error.message), Live::end)
        };
        let (code, text) = seen(false);
        assert!(code == 0 && text.contains("/dev/g 0 640 7:3") && text.ends_with("\n1\n"), "{text}");
        if Launch::look().detached_layers {
            assert_eq!(seen(true), (code, text));
        }
    });
}

#[test]
fn limits_are_seen_inside_on_the_unified_hierarchy() {
    requires!(root, cgroup_v2);
    let world = World::new();
    let image = world.busybox();
    let script = "cd /sys/fs/cgroup; for f in memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight cpuset.cpus; \
        do echo $f $(cat $f); done; cat /proc/self/cgroup; echo 1 2>/dev/null > pids.max || echo read-only; sleep 600";
    let mut flags = vec!["run", "-d", "--name", "limited", "--network", "none", "-m", "64m", "--memory-swap", "96m"];
    flags.extend(["--memory-reservation", "32m", "--pids-limit", "32", "--cpus", "0.5", "--cpu-shares", "512"]);
    flags.extend(["--cpuset-cpus", "0", image, "sh", "-c", script]);
    world.ok(&flags);
    let expected = "memory.max 67108864\nmemory.swap.max 33554432\nmemory.low 33554432\npids.max 32\ncpu.max 50000 100000\n\
        cpu.weight 20\ncpuset.cpus 0\n0::/\nread-only";
    let seen = crate::support::wait_for("what the container sees", 30, || {
        Some(world.ok(&["logs", "limited"])).filter(|text| text.ends_with("read-only"))
    });
    assert_eq!(seen, expected);
    // Added processes are in the same group, behind the same view.
    assert_eq!(world.ok(&["exec", "limited", "cat", "/proc/self/cgroup"]), "0::/");
    let count = world.ok(&["exec", "limited", "sh", "-c", "grep -c . /sys/fs/cgroup/cgroup.procs"]);
    assert!(count.parse::<u32>().unwrap() >= 2, "init and the exec are members: {count}");
}

#[test]
fn a_limit_whose_controller_is_not_handed_down_says_what_to_do() {
    requires!(root, cgroup_v2);
    let world = World::new();
    world.busybox();
    // The first container with limits has the topmost group hand controllers down.
    world.ok(&["run", "--rm", "--network", "none", "-m", "64m", "busybox", "true"]);
    // A place as inside another engine's container: the topmost group seen has processes.
    let group = format!("/sys/fs/cgroup/bhtest-{}", std::process::id());
    let script = "mkdir $0 && echo $$ > $0/cgroup.procs && exec unshare --cgroup --mount sh -c \
        'umount -l /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"' sh \"$@\"";
    let (root, run) = (world.root.to_str().unwrap(), world.run.to_str().unwrap());
    let program =
        [crate::support::BULKHEAD, "--root", root, "--run", run, "run", "--rm", "--network", "none", "-m", "64m"];
    let mut arguments = vec!["-c", script, &group];
    arguments.extend(program);
    arguments.extend(["busybox", "true"]);
    let refused = world.host("sh", &arguments);
    let gone = crate::support::wait_for("the group to be empty", 30, || {
        Some(host("rmdir", &[&group])).filter(|r| r.code == 0)
    });
    drop(gone);
    refused.fails(125, &["memory.max", "has processes of its own", "/leaf"]);
}

#[test]
fn groups_whose_removal_was_cut_off_are_swept() {
    requires!(root, cgroup_v2);
    let mount = std::path::PathBuf::from("/sys/fs/cgroup");
    let path = format!("bulkhead-swept-{}", std::process::id());
    let top = mount.join(&path);
    let group = Group { mount, controllers: Vec::new(), writes: Vec::new() };
    let plan = CgroupPlan { unified: true, path, groups: vec![group], devices: None };
    // The group of the container's processes goes first; whoever is in the keeper's may wait for a word from us.
    for below in [&["keeper"][..], &[], &["payload", "keeper"]] {
        std::fs::create_dir(&top).unwrap();
        below.iter().for_each(|name| std::fs::create_dir(top.join(name)).unwrap());
        let mut waiting = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        if let Some(last) = below.last() {
            std::fs::write(top.join(last).join("cgroup.procs"), waiting.id().to_string()).unwrap();
        }
        let began = std::time::Instant::now();
        sweep(&plan).unwrap();
        assert!(!top.exists() && began.elapsed().as_secs() < 5, "{below:?}: {:?}", began.elapsed());
        let _ = waiting.kill();
        waiting.wait().unwrap();
    }
}
