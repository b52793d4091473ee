//! A boot of the machine, played: what runs is gone at once, and so is all that lives in `--run` and the network.

use crate::support::{World, host, requires, wait_for};
use std::path::Path;

/// Ends everything of this world as a power cut does, and forgets what a boot forgets.
fn boot(world: &World) {
    for name in world.ok(&["ps", "-q"]).lines() {
        let init = world.inspect(name, "{{.State.Pid}}");
        let status = std::fs::read_to_string(format!("/proc/{init}/status")).unwrap();
        let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        host("kill", &["-9", shim]).ok();
        wait_for("the workload to go with its shim", 10, || (!Path::new("/proc").join(&init).exists()).then_some(()));
    }
    std::fs::remove_dir_all(&world.run).unwrap();
    let links = world.host("ip", &["-o", "link"]).ok();
    for name in links.lines().filter_map(|line| line.split(": ").nth(1)).filter(|name| *name != "lo") {
        // Its other end may have gone first.
        world.host("ip", &["link", "del", name.split('@').next().unwrap()]);
    }
    world.host("nft", &["flush", "ruleset"]).ok();
}

#[test]
fn a_boot_brings_back_what_policies_say_and_forgets_the_rest() {
    requires!(root, program "nft", program "curl");
    let world = World::new();
    let image = world.busybox();
    let run = |name: &str, flags: &[&str]| {
        world.ok(&[&["run", "-d", "--name", name][..], flags, &[image, "sleep", "600"]].concat());
    };
    let serve = "mkdir -p /www && echo back > /www/index.html && exec httpd -f -p 80 -h /www";
    world.ok(&["run", "-d", "--name", "web", "-p", "8080:80", "--restart", "always", image, "sh", "-c", serve]);
    run("joins", &["--network", "container:web", "--restart", "unless-stopped"]);
    run("kept", &["--network", "none", "--restart", "unless-stopped"]);
    run("halted", &["--network", "none", "--restart", "unless-stopped"]);
    run("insists", &["--network", "none", "--restart", "always"]);
    run("once", &["--network", "none"]);
    run("fails", &["--network", "none", "--restart", "on-failure"]);
    run("gone", &["--network", "none", "--rm"]);
    world.ok(&["create", "--network", "none", "--name", "never", "--restart", "always", image, "sleep", "600"]);
    world.ok(&["create", "--network", "none", "--name", "later", "--rm", image, "sleep", "600"]);
    world.ok(&["stop", "-t", "0", "halted", "insists"]);

    boot(&world);
    let states = |world: &World| world.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]);
    assert_eq!(
        states(&world).lines().collect::<Vec<_>>(),
        [
            "later created",
            "never created",
            "fails exited",
            "once exited",
            "insists exited",
            "halted exited",
            "kept exited",
            "joins exited",
            "web exited"
        ]
    );
    assert_eq!(world.ok(&["start", "--all"]), "web\njoins\nkept\ninsists", "oldest first");
    let running = world.ok(&["ps", "--format", "{{.Names}}"]);
    assert_eq!(running, "insists\nkept\njoins\nweb");
    wait_for("the page", 10, || {
        let seen = world.host("curl", &["-s", "-m", "2", "http://127.0.0.1:8080/"]);
        (seen.stdout == "back\n").then_some(())
    });
    assert_eq!(world.ok(&["start", "--all"]), "", "what runs is left alone");
}

#[test]
fn a_shutdown_ends_what_runs_in_good_order_and_the_next_boot_brings_it_back() {
    requires!(root, program "nft");
    let world = World::new();
    let image = world.busybox();
    let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    for (name, policy) in [("one", "unless-stopped"), ("two", "always"), ("three", "no")] {
        let start = ["run", "-d", "--network", "none", "--name", name, "--restart", policy, image, "sh", "-c", script];
        world.ok(&start);
        world.wait_said(name, "up", 1);
    }
    world.bulkhead(&["stop", "--all", "one"]).fails(125, &["--all"]);
    assert_eq!(world.ok(&["stop", "--all"]), "three\ntwo\none", "newest first");
    assert_eq!(world.inspect("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    boot(&world);
    assert_eq!(world.ok(&["start", "--all"]), "one\ntwo");
    world.ok(&["stop", "one", "two"]);
    boot(&world);
    assert_eq!(world.ok(&["start", "--all"]), "two", "the user's stop lasts");
    world.ok(&["start", "one"]);
    boot(&world);
    assert_eq!(world.ok(&["start", "--all"]), "one\ntwo", "until the user's start");
}

#[test]
fn a_state_cut_short_by_the_power_counts_as_an_end() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    let id =
        world.ok(&["run", "-d", "--network", "none", "--name", "cut", "--restart", "always", image, "sleep", "600"]);
    boot(&world);
    std::fs::File::create(world.root.join("containers").join(&id).join("state.json")).unwrap();
    assert_eq!(world.ok(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]), "cut exited");
    assert_eq!(world.ok(&["start", "--all"]), "cut");
}

#[test]
fn a_start_that_failed_leaves_the_container_created() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    world.ok(&["create", "--network", "none", "--name", "bad", image, "/no/such/program"]);
    world.bulkhead(&["start", "bad"]).fails(1, &["/no/such/program"]);
    assert_eq!(world.inspect("bad", "{{.State.Status}} {{.State.ExitCode}}"), "created 127");
    // Refused before there was a supervisor that could have written a state.
    world.ok(&["run", "--network", "none", "--name", "other", image, "true"]);
    world.ok(&["create", "--network", "container:other", "--name", "alone", image, "true"]);
    world.bulkhead(&["start", "alone"]).fails(1, &["other", "not running"]);
    assert_eq!(world.inspect("alone", "{{.State.Status}} {{.State.ExitCode}}"), "created 0");
}

#[test]
fn enable_writes_a_unit_and_disable_takes_it_away() {
    requires!(root);
    let world = World::new();
    let units = world.path("units");
    let directory = units.to_str().unwrap();
    let file = world.ok(&["enable", "--unit-dir", directory]);
    world.ok(&["enable", "--unit-dir", directory]);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(
        text.contains(&format!("--root \"{}\"", world.root.display())) && text.contains(" start --all\n"),
        "{text}"
    );
    let link = units.join("multi-user.target.wants").join(Path::new(&file).file_name().unwrap());
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new(&file));
    if crate::support::need_program("systemd-analyze").is_ok() {
        host("systemd-analyze", &["verify", &file]).ok();
    }
    world.ok(&["disable", "--unit-dir", directory]);
    assert!(!Path::new(&file).exists() && std::fs::symlink_metadata(&link).is_err());
}

#[test]
fn a_container_owns_its_names_until_the_next_start_and_the_disk_has_none_of_them() {
    requires!(root, program "nft");
    let world = World::new();
    let image = world.busybox();
    // Each life has its own copy, as a restart of Docker's writes them anew.
    let script = "stat -c '%n %u:%g %a' /etc/hosts /etc/hostname /etc/resolv.conf; \
        grep -c mine /etc/hosts; echo '10.1.2.3 mine' >>/etc/hosts; exit 3";
    let seen = "/etc/hosts 0:0 644\n/etc/hostname 0:0 644\n/etc/resolv.conf 0:0 644\n";
    for (name, flags) in [("mapped", ["--network", "bridge"]), ("plain", ["--userns", "host"])] {
        let start =
            [&["run", "-d", "--name", name, "--restart", "on-failure:1"], &flags[..], &[image, "sh", "-c", script]];
        world.ok(&start.concat());
        world.ok(&["wait", name]);
        assert_eq!(world.ok(&["logs", name]), format!("{seen}0\n{seen}0").as_str(), "{name}");
    }
    boot(&world);
    world.bulkhead(&["start", "-a", "mapped"]);
    let all = world.ok(&["logs", "mapped"]);
    assert!(all.ends_with(&format!("{seen}0\n{seen}0\n{seen}0")), "a start writes them anew: {all}");
    let id = world.ok(&["run", "-d", "--name", "up", image, "sleep", "600"]);
    world.ok(&["exec", "up", "sh", "-c", "echo '10.1.2.3 mine' >>/etc/hosts && grep -q mine /etc/hosts"]);
    assert_eq!(world.inspect("up", "{{.HostsPath}}{{.HostnamePath}}{{.ResolvConfPath}}"), "", "no path of the host's");
    let path = world.run.join(&id).join("hosts");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("mine"), "{} is the host's: {text}", path.display());
    // However much it writes there, the host's /run does not fill.
    let fills = "head -c 8m /dev/zero >>/etc/hosts; stat -c %s /etc/hosts";
    let size: u64 = world.bulkhead(&["exec", "up", "sh", "-c", fills]).stdout.trim().parse().unwrap();
    // The three share their room.
    assert!((1..=1 << 20).contains(&size), "{size} bytes");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), text.len() as u64);
    let named =
        |path: &String| ["hosts", "hostname", "resolv.conf"].iter().any(|name| path.ends_with(&format!("/{name}")));
    let kept: Vec<_> =
        world.files().into_iter().filter(|path| path.starts_with("root/containers/") && named(path)).collect();
    assert!(kept.is_empty(), "{kept:?}");
    world.ok(&["stop", "-t", "0", "up"]);
    let refused = world.bulkhead(&["run", "--rm", "--network", "container:up", image, "true"]);
    assert!(refused.stderr.contains("not running"), "{refused:?}");
}

#[test]
fn a_container_costs_the_disk_few_files() {
    requires!(root);
    let world = World::new();
    let image = world.busybox();
    world.ok(&["ps"]);
    let before = world.files();
    let id = world.ok(&["run", "-d", "--name", "web", "--network", "none", image, "sleep", "600"]);
    let new = world.files();
    let on_disk = new.difference(&before).filter(|path| path.starts_with("root/"));
    let names: Vec<_> = on_disk.map(|path| path.trim_start_matches("root/").replace(&id, "ID")).collect();
    assert_eq!(
        names,
        [
            "containers/ID",
            "containers/ID/config.json",
            "names/web",
            "snapshots/ID",
            "snapshots/ID/fs",
            "snapshots/ID/work",
            "snapshots/ID/work/work"
        ]
    );
    world.ok(&["exec", "web", "sh", "-c", "echo text >/etc/mine && cat /etc/hosts /etc/passwd >/dev/null"]);
    assert!(world.root.join("snapshots").join(&id).join("fs/etc/mine").exists());
    // The places below an image are nobody's to see: removed in the image, they are made above it.
    world.write("ctx/Dockerfile", "FROM busybox\nCOPY Dockerfile /etc/hostname\n");
    world.ok(&["build", "-t", "has:1", world.path("ctx").to_str().unwrap()]);
    for flags in [&["--read-only"][..], &["--privileged", "--read-only"], &["--privileged"]] {
        let start = [&["run", "--rm", "--network", "none"][..], flags];
        for image in [image, "has:1"] {
            let seen =
                world.ok(&[start.concat(), vec![image, "sh", "-c", "cat /etc/hosts && stat -c %a /etc"]].concat());
            assert!(seen.contains("localhost") && seen.ends_with("755"), "{flags:?} {image}: {seen}");
        }
    }
    world.ok(&["rm", "-f", "web"]);
    world.ok(&["rmi", "has:1"]);
    world.ok(&["image", "prune", "-af"]);
    assert!(world.root.join("snapshots/.places/fs/etc/hosts").exists(), "collected");
}
