//! Containers in the network of another.

use crate::network::server;
use crate::support::{World, host, kernel, requires, wait_for};

#[test]
fn containers_share_a_network_when_asked() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "first", &[]);
    let join = ["run", "--rm", "--network", "container:first", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1/"];
    wait_for("the neighbour's loopback", 10, || world.bulkhead(&join).stdout.contains("first").then_some(()));
    let name = |more: &[&str]| world.ok(&[&["run", "--rm"][..], more, &["busybox", "hostname"]].concat());
    assert_eq!(name(&["--network", "container:first"]), world.inspect("first", "{{.Config.Hostname}}"));
    let warned = world.bulkhead(&["run", "--rm", "--network", "none", "-p", "80:80", "busybox", "true"]);
    assert!(warned.stderr.contains("Published ports are discarded"), "{warned:?}");
    world.bulkhead(&["run", "--rm", "--network", "container:nobody", "busybox", "true"]).fails(125, &["nobody"]);
}

#[test]
fn who_joins_a_network_shares_its_names_and_their_edits() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let sleeps = |name: &str, more: &[&str]| {
        world.ok(&[&["run", "-d", "--name", name], more, &["busybox", "sleep", "600"]].concat());
    };
    let sh = |name: &str, script: &str| world.ok(&["exec", name, "sh", "-c", script]);
    for (first, flags) in [("own", &["--network", "bridge"][..]), ("of-host", &["--userns", "host"])] {
        sleeps(first, flags);
        sh(first, "echo 10.1.2.3 before >> /etc/hosts");
        let network = format!("container:{first}");
        let (second, third) = (format!("{first}-2"), format!("{first}-3"));
        sleeps(&second, &["--network", &network]);
        // Who joins one that joined shares it too.
        sleeps(&third, &["--network", &format!("container:{second}")]);
        sh(first, "echo 10.1.2.4 after >> /etc/hosts; echo 'search first' >> /etc/resolv.conf");
        sh(&third, "echo 10.1.2.5 third >> /etc/hosts; echo third > /etc/hostname");
        let seen = sh(first, "cat /etc/hosts /etc/hostname /etc/resolv.conf");
        assert!(["before", "after", "third\nthird\n", "search first"].iter().all(|word| seen.contains(word)), "{seen}");
        for name in [&second, &third] {
            assert_eq!(sh(name, "cat /etc/hosts /etc/hostname /etc/resolv.conf"), seen, "{name}");
            assert_eq!(sh(name, "stat -c '%u:%g %a' /etc/hosts"), "0:0 644", "{name}");
        }
        world.ok(&["rm", "-f", first]);
        assert!(sh(&second, "cat /etc/hosts").contains("after"), "it outlives its first owner");
    }
}

#[test]
fn nothing_else_of_the_one_whose_network_is_joined_is_shared() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let given = world.write("given/file", "");
    let directory = given.parent().unwrap();
    // As our copies are; before Linux 6.3 none of the host's can be given to a container.
    let on_tmpfs = kernel() >= (6, 3);
    if on_tmpfs {
        host("mount", &["-t", "tmpfs", "bulkhead-test", directory.to_str().unwrap()]).ok();
    }
    std::fs::write(&given, "of the host\n").unwrap();
    let given = given.to_str().unwrap();
    // A file of the host's over its hosts by the user, one by its own root, and a link in its place.
    let sleeps = ["busybox", "sleep", "600"];
    let run = |flags: &[&str]| world.ok(&[&["run", "-d"], flags, &sleeps].concat());
    run(&["--name", "bound", "-v", &format!("{given}:/etc/hosts")]);
    let can_mount = &["--cap-add", "SYS_ADMIN", "--security-opt", "landlock=off"][..];
    run(&[&["--name", "covers", "-v", &format!("{given}:/given")], can_mount].concat());
    world.ok(&["exec", "covers", "sh", "-c", "mount --bind /given /etc/hosts && cat /etc/hosts"]);
    std::os::unix::fs::symlink("/given/file", directory.join("hosts")).unwrap();
    let directory = directory.to_str().unwrap();
    run(&[&["--name", "links", "-v", &format!("{directory}:/given")], can_mount].concat());
    world.ok(&["exec", "links", "sh", "-c", "mount --bind /given /etc && cat /etc/hosts"]);
    for name in ["bound", "covers", "links"] {
        let joins = ["run", "--rm", "--network", &format!("container:{name}"), "busybox", "cat", "/etc/hosts"];
        let seen = world.ok(&joins);
        assert!(seen.contains("127.0.0.1") && !seen.contains("of the host"), "{name}: {seen}");
    }
    for id in world.ok(&["ps", "-aq"]).lines() {
        world.ok(&["rm", "-f", id]);
    }
    if on_tmpfs {
        host("umount", &[directory]).ok();
    }
}

#[test]
fn the_ids_of_one_that_has_gone_stay_with_those_who_joined_it() {
    requires!(root);
    let world = World::new();
    world.busybox();
    world.container("first").idle().start();
    world.ok(&["run", "-d", "--name", "second", "--network", "container:first", "busybox", "sleep", "600"]);
    world.ok(&["run", "-d", "--name", "third", "--network", "container:second", "busybox", "sleep", "600"]);
    let taken = || {
        let slots = std::fs::read_dir(world.run.join("ranges")).unwrap();
        let mut names: Vec<_> = slots.map(|slot| slot.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let slot = taken().remove(0);
    let joined = format!("{slot}.joined");
    assert_eq!(taken(), [slot, joined.clone()]);
    world.ok(&["rm", "-f", "first"]);
    assert_eq!(taken(), std::slice::from_ref(&joined));
    world.ok(&["stop", "-t", "0", "second"]);
    assert_eq!(taken(), [joined], "the third lives in it");
    // Who dies by a signal, its shim too, leaves its note for the next look.
    world.kill_shim("third");
    wait_for("the look that tidies up", 10, || world.ok(&["ps", "-q"]).is_empty().then_some(()));
    wait_for("a slot nobody is in", 10, || taken().is_empty().then_some(()));
}
