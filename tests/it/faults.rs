//! Faults: kills at every point, races for one name, full disks, images that are not what they should be.

use crate::support::{World, host, requires, wait_for};
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

#[test]
fn refused_input_says_what_where_why_and_what_next() {
    requires!(root);
    let world = World::new();
    world.busybox();
    for (arguments, words) in [
        (&["stop", "nobody"][..], &["nobody"][..]),
        (&["rm", "nobody"], &["nobody"]),
        (&["logs", "nobody"], &["nobody"]),
        (&["start", "nobody"], &["nobody"]),
        (&["rmi", "nothing:1"], &["nothing:1"]),
        (&["inspect", "--format", "{{nonsense .Id}}", "busybox"], &["nonsense"]),
    ] {
        let text = world.bulkhead(arguments).fails(1, words);
        assert!(text.starts_with("error: "), "{text}");
        assert_eq!(text.lines().filter(|line| line.starts_with("error: ")).count(), 1, "one error: {text}");
    }
    for id in ["a", "b"] {
        world.ok(&["create", "--network", "none", "--name", &format!("{id}{id}"), "busybox", "true"]);
    }
    let ids = world.ok(&["ps", "-aq", "--no-trunc"]);
    let ids: Vec<&str> = ids.lines().collect();
    let shared = ids[0].chars().zip(ids[1].chars()).take_while(|(a, b)| a == b).count();
    if shared > 0 {
        world.bulkhead(&["rm", &ids[0][..shared]]).fails(1, &["ambiguous"]);
    }
}

#[test]
fn one_of_many_wins_a_name() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let children: Vec<_> = (0..20)
        .map(|_| world.spawn(&["run", "-d", "--network", "none", "--name", "prize", "busybox", "sleep", "600"]))
        .collect();
    let outputs: Vec<_> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let won = outputs.iter().filter(|output| output.status.success()).count();
    let texts: Vec<_> = outputs
        .iter()
        .filter(|output| !output.status.success())
        .map(|output| String::from_utf8_lossy(&output.stderr).into_owned())
        .collect();
    assert_eq!(won, 1, "{texts:?}");
    assert!(texts.iter().all(|text| text.contains("in use")), "{texts:?}");
    assert_eq!(world.ok(&["ps", "-aq"]).lines().count(), 1);
    let children: Vec<_> = (0..10).map(|_| world.spawn(&["rm", "-f", "prize"])).collect();
    for child in children {
        let _ = child.wait_with_output().unwrap();
    }
    assert_eq!(world.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_start_waits_for_the_shim_of_one_that_was_killed() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let id = world.ok(&["create", "--name", "again", "-p", "8080:80", "busybox", "sleep", "600"]);
    // What a killed start leaves for a moment: the mark beside the record, and a shim that holds its lock and says nothing.
    std::fs::set_permissions(world.root.join("containers").join(&id), Permissions::from_mode(0o1700)).unwrap();
    std::fs::create_dir(world.run.join(&id)).unwrap();
    let lock = File::create(world.run.join(&id).join("lock")).unwrap();
    let whole =
        libc::flock { l_type: libc::F_WRLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETLK(&whole)).unwrap();
    let mut second = world.spawn(&["start", "again"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(second.try_wait().unwrap().is_none(), "it waits");
    drop(lock);
    assert!(second.wait().unwrap().success());
    assert_eq!(world.inspect("again", "{{.State.Status}}"), "running");
    assert_ne!(world.inspect("again", "{{.NetworkSettings.IPAddress}}"), "");
    assert_eq!(world.ok(&["port", "again"]).lines().next(), Some("80/tcp -> 0.0.0.0:8080"));
    world.ok(&["rm", "-f", "again"]);
}

#[test]
fn a_killed_command_line_can_be_given_again() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // A slice of moments from a seed; `just full` walks through them all.
    let step = crate::support::seed() % 400;
    let moments = if crate::support::need_full().is_ok() {
        (0..40_000).step_by(100).collect::<Vec<u64>>()
    } else {
        (0..12).map(|i| i * 1_500 + step).collect()
    };
    for microseconds in moments {
        let mut child = world.spawn(&["run", "-d", "--name", "again", "-p", "8080:80", "busybox", "sleep", "600"]);
        std::thread::sleep(Duration::from_micros(microseconds));
        let _ = child.kill();
        let _ = child.wait();
        let first = world.bulkhead(&["inspect", "--format", "{{.State.Status}}", "again"]);
        if first.code == 0 {
            let status = first.stdout.trim().to_owned();
            assert!(
                ["created", "running", "exited"].contains(&status.as_str()),
                "killed after {microseconds} us: {status}"
            );
            world.ok(&["rm", "-f", "again"]);
        }
        world.ok(&["run", "-d", "--name", "again", "-p", "8080:80", "busybox", "sleep", "600"]);
        assert_eq!(world.inspect("again", "{{.State.Status}}"), "running", "killed after {microseconds} us");
        world.ok(&["rm", "-f", "again"]);
    }
}

#[test]
fn a_killed_shim_is_noticed_and_its_container_removable() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let id = world.ok(&["run", "-d", "--name", "orphan", "-p", "8080:80", "busybox", "sleep", "600"]);
    let init = world.inspect("orphan", "{{.State.Pid}}");
    let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    host("kill", &["-9", &shim]).ok();
    wait_for("the workload to go with its shim", 10, || {
        (!std::path::Path::new(&format!("/proc/{init}")).exists()).then_some(())
    });
    let seen = world.inspect("orphan", "{{.State.Status}}");
    assert!(["exited", "dead"].contains(&seen.as_str()), "{seen}");
    assert_eq!(world.ok(&["ps", "-q"]), "");
    world.ok(&["start", "orphan"]);
    assert_eq!(world.inspect("orphan", "{{.State.Status}}"), "running");
    world.ok(&["rm", "-f", &id]);
}

#[test]
fn images_that_are_not_what_they_should_be_start_or_say_why() {
    requires!(root);
    let world = World::new();
    let break_root = |name: &str, script: &str| {
        let directory = world.path(name);
        std::fs::create_dir(&directory).unwrap();
        let place = directory.to_str().unwrap();
        host("tar", &["-C", place, "-xf", crate::support::busybox_tar().to_str().unwrap()]).ok();
        host("sh", &["-ec", &format!("cd {place}; {script}")]).ok();
        let tar = world.path(&format!("{name}.tar"));
        host("tar", &["-C", place, "-cf", tar.to_str().unwrap(), "."]).ok();
        world.ok(&["import", tar.to_str().unwrap(), &format!("{name}:1")]);
        world.bulkhead(&[
            "run",
            "--rm",
            "--network",
            "none",
            "-u",
            "daemon",
            "-w",
            "/work",
            &format!("{name}:1"),
            "sh",
            "-c",
            "id -u; pwd",
        ])
    };
    let cases: &[(&str, &str, bool)] = &[
        ("fine", "true", true),
        ("passwd-fifo", "rm etc/passwd; mkfifo etc/passwd", false),
        ("passwd-directory", "rm etc/passwd; mkdir etc/passwd", false),
        ("passwd-link-out", "rm etc/passwd; ln -s ../../../../../../etc/passwd etc/passwd", false),
        ("passwd-device", "rm etc/passwd; mknod etc/passwd c 1 5", false),
        ("passwd-huge", "head -c 300m /dev/zero | tr '\\0' 'x' > etc/passwd", false),
        ("work-file", "echo x > work", false),
        ("work-link-out", "ln -s /../../../tmp work", true),
        ("no-mount-points", "rm -rf proc sys dev tmp", true),
        ("proc-is-a-file", "rmdir proc; echo x > proc", false),
        ("dev-is-a-link", "rmdir dev; ln -s /etc dev", false),
        ("proc-is-a-link", "rmdir proc; ln -s /etc proc", false),
    ];
    for (name, script, starts) in cases {
        let seen = break_root(name, script);
        if *starts {
            assert_eq!(seen.code, 0, "{name}: {seen:?}");
            assert!(seen.stdout.starts_with("1\n"), "{name}: {seen:?}");
        } else {
            assert_eq!(seen.code, 125, "{name}: {seen:?}");
            assert!(seen.stderr.starts_with("error: "), "{name}: {seen:?}");
        }
        assert_eq!(world.ok(&["ps", "-aq"]), "", "{name}");
    }
}

#[test]
fn cycles_leave_nothing_on_the_machine() {
    requires!(root);
    let world = World::alone();
    world.busybox();
    // What the first container leaves for good: the bridge, its rules, the compiled filter.
    world.ok(&["run", "--rm", "-p", "8080:80", "busybox", "true"]);
    let (files, namespaces) = (world.files(), namespaces());
    let cycles = if crate::support::need_full().is_ok() { 1000 } else { 24 };
    for cycle in 0..cycles {
        match cycle % 4 {
            0 => {
                let id = world.ok(&["run", "-d", "-p", "8080:80", "-v", "/data", "busybox", "sleep", "600"]);
                world.ok(&["exec", &id, "true"]);
                world.ok(&["rm", "-f", "-v", &id]);
            }
            1 => {
                let id = world.ok(&["create", "--network", "none", "-v", "/data", "busybox", "true"]);
                world.ok(&["start", "-a", &id]);
                world.ok(&["start", "-a", &id]);
                world.ok(&["rm", "-v", &id]);
            }
            2 => drop(world.ok(&["run", "--rm", "-p", "127.0.0.1:0:80", "-p", "0:53/udp", "busybox", "true"])),
            _ => drop(world.bulkhead(&["run", "--rm", "--memory", "16m", "busybox", "no-such-program"]).code(127)),
        }
    }
    assert_eq!(world.ok(&["volume", "ls", "-q"]), "");
    let stays = |path: &&String| path.ends_with("/last") || path.ends_with(".bpf");
    wait_for("the last clean-up to end", 10, || {
        let left: Vec<_> = world.files().difference(&files).filter(|path| !stays(path)).cloned().collect();
        left.is_empty().then_some(())
    });
    // Everything a container had lived in these; there is no daemon whose descriptors could grow.
    wait_for("namespaces to go with their containers", 10, || (self::namespaces() <= namespaces).then_some(()));
}

/// How many network namespaces hold or are held by a process.
fn namespaces() -> usize {
    let mut seen = std::collections::BTreeSet::new();
    for process in std::fs::read_dir("/proc").unwrap().flatten() {
        let held = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
        for link in held.chain([process.path().join("ns/net")]) {
            let target = std::fs::read_link(link).unwrap_or_default().to_string_lossy().into_owned();
            if target.starts_with("net:[") {
                seen.insert(target);
            }
        }
    }
    seen.len()
}
