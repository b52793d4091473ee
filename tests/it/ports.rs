//! `-p` with ranges, `-P`, and how `ps`, `port` and `inspect` show what came of it.

use crate::support::{World, requires};

fn ports(world: &World, name: &str, flags: &[&str]) -> String {
    let run = [&["run", "-d", "--name", name][..], flags, &["busybox:latest", "sleep", "600"]].concat();
    world.ok(&run);
    world.ok(&["port", name])
}

#[test]
fn one_port_takes_any_free_one_of_a_range() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let both = |port: u16| format!("80/tcp -> 0.0.0.0:{port}\n80/tcp -> [::]:{port}");
    assert_eq!(ports(&world, "first", &["-p", "8000-8002:80"]), both(8000));
    assert_eq!(ports(&world, "second", &["-p", "8000-8002:80"]), both(8001));
    assert_eq!(
        world.inspect("first", "{{json .HostConfig.PortBindings}}"),
        r#"{"80/tcp":[{"HostIp":"","HostPort":"8000-8002"}]}"#
    );
    // A port that must be this one is served before those that may be any.
    assert_eq!(
        ports(&world, "third", &["-p", "127.0.0.1:8002-8003:80", "-p", "127.0.0.1:8002:81"]),
        "80/tcp -> 127.0.0.1:8003\n81/tcp -> 127.0.0.1:8002"
    );
    let full = ["run", "-d", "-p", "8000-8002:80", "busybox", "sleep", "600"];
    world.bulkhead(&full).fails(125, &["8000-8002", "already allocated"]);
    assert_eq!(world.ok(&["ps", "-aq"]).lines().count(), 3, "the refused one is gone");
    world.ok(&["rm", "-f", "first"]);
    world.ok(&full);
}

#[test]
fn ranges_pair_up_and_a_missing_host_port_is_chosen() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = ports(&world, "pairs", &["-p", "127.0.0.1:8000-8002:80-82"]);
    assert_eq!(seen, "80/tcp -> 127.0.0.1:8000\n81/tcp -> 127.0.0.1:8001\n82/tcp -> 127.0.0.1:8002");
    assert_eq!(world.ok(&["port", "pairs", "81"]), "127.0.0.1:8001");
    assert_eq!(
        world.ok(&["ps", "--format", "{{.Ports}}"]),
        "127.0.0.1:8000->80/tcp, 127.0.0.1:8001->81/tcp, 127.0.0.1:8002->82/tcp"
    );
    let seen = ports(&world, "chosen", &["-p", "127.0.0.1::80/udp"]);
    let port: u16 = seen.strip_prefix("80/udp -> 127.0.0.1:").and_then(|port| port.parse().ok()).expect(&seen);
    assert!(port > 1023, "{seen}");
    assert_eq!(
        world.inspect("chosen", "{{json .HostConfig.PortBindings}}"),
        r#"{"80/udp":[{"HostIp":"127.0.0.1","HostPort":""}]}"#
    );
    assert_eq!(
        world.inspect("chosen", r#"{{(index (index .NetworkSettings.Ports "80/udp") 0).HostPort}}"#),
        port.to_string()
    );
}

#[test]
fn every_exposed_port_is_published_with_capital_p() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = ports(&world, "all", &["-P", "--expose", "80-81", "--expose", "53/udp", "-p", "8081:81"]);
    let line = |start: &str| seen.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(
        (line("80/tcp -> 0.0.0.0:"), line("53/udp -> [::]:"), line("81/tcp -> 0.0.0.0:8081"), seen.lines().count()),
        (1, 1, 1, 6),
        "{seen}"
    );
    world.ok(&["stop", "-t", "0", "all"]);
    assert_eq!(world.ok(&["port", "all"]), "", "nothing is published while it does not run");
    // The operator's address holds for ports nobody spelled out, too.
    let settings = world.write("bulkhead.toml", "[publish]\naddress = \"127.0.0.1\"\n");
    let mut command =
        world.command(&["run", "-d", "--name", "near", "-P", "--expose", "80", "busybox", "sleep", "600"]);
    assert!(command.env("BULKHEAD_CONFIG", settings).output().unwrap().status.success());
    assert!(world.ok(&["port", "near"]).starts_with("80/tcp -> 127.0.0.1:"));
    assert_eq!(world.ok(&["port", "near"]).lines().count(), 1);
}
