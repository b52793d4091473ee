//! Networks: none, host, another container's, the default bridge, published ports, names.

use crate::support::{World, host, requires, wait_for};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// A web server on port 80 of a container.
const SERVE: &str = "mkdir -p /www && echo $WHO > /www/index.html && exec httpd -f -p 80 -h /www";

pub(crate) fn server(world: &World, name: &str, flags: &[&str]) {
    let who = format!("WHO={name}");
    let mut arguments = vec!["run", "-d", "--name", name, "-e", &who];
    arguments.extend(flags);
    arguments.extend(["busybox:latest", "sh", "-c", SERVE]);
    world.ok(&arguments);
}

/// What the web server at an address says to a client on the host.
fn fetch(world: &World, address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    world.within(|| {
        let patience = Duration::from_secs(2);
        let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        Some(text.split_once("\r\n\r\n")?.1.trim().to_owned())
    })
}

/// What comes back for a datagram from the host.
fn ask(world: &World, address: &str, question: &[u8]) -> Option<Vec<u8>> {
    let address: SocketAddr = address.parse().unwrap();
    world.within(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket.send_to(question, address).ok()?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).ok()?;
        Some(answer[..length].to_vec())
    })
}

/// Starts a container in which this very test binary answers on port 53 (UDP, an echo) and 80 (TCP, the peer's address):
/// busybox has no server for either.
fn helper(world: &World, name: &str, publish: &str) {
    let own = std::env::current_exe().unwrap();
    let bind = format!("{}:/helper:ro", own.display());
    let mut arguments = vec!["run", "-d", "--name", name, "-p", publish, "-e", "BULKHEAD_TEST_HELPER=1", "-v", &bind];
    arguments.extend(["busybox", "/helper", "--exact", "network::answers_inside_a_container"]);
    world.ok(&arguments);
}

#[test]
fn answers_inside_a_container() {
    if std::env::var_os("BULKHEAD_TEST_HELPER").is_none() {
        return;
    }
    std::thread::spawn(|| {
        let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            socket.send_to(&packet[..length], from).unwrap();
        }
    });
    for stream in TcpListener::bind("0.0.0.0:80").unwrap().incoming() {
        let mut stream = stream.unwrap();
        let peer = stream.peer_addr().unwrap().ip();
        stream.write_all(peer.to_string().as_bytes()).unwrap();
    }
}

#[test]
fn none_has_loopback_alone() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let seen = world.ok(&[
        "run",
        "--rm",
        "--network",
        "none",
        "--cap-add",
        "NET_RAW",
        "busybox",
        "sh",
        "-c",
        "ip -o addr | awk '{print $2, $4}'; ping -c1 -W1 127.0.0.1 >/dev/null && echo up",
    ]);
    assert!(seen.lines().all(|line| line.starts_with("lo ") || line == "up") && seen.ends_with("up"), "{seen}");
}

#[test]
fn bridge_has_an_address_a_route_and_neighbours() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "one", &["--cap-add", "NET_RAW"]);
    server(&world, "two", &[]);
    let address = world.inspect("one", "{{.NetworkSettings.IPAddress}}");
    let gateway = world.inspect("one", "{{.NetworkSettings.Gateway}}");
    wait_for("the server", 10, || {
        world
            .bulkhead(&["exec", "two", "wget", "-q", "-O", "-", &format!("http://{address}/")])
            .stdout
            .contains("one")
            .then_some(())
    });
    assert!(world.ok(&["exec", "two", "ip", "route"]).contains(&format!("default via {gateway}")));
    assert_ne!(address, world.inspect("two", "{{.NetworkSettings.IPAddress}}"));
    let hosts = world.ok(&["exec", "one", "cat", "/etc/hosts"]);
    assert!(hosts.lines().any(|line| line.starts_with(&address)) && hosts.contains("localhost"), "{hosts}");
    world.ok(&["exec", "one", "ping", "-c1", "-W2", &gateway]);
}

#[test]
fn published_ports_are_reached_from_the_host() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "web", &["-p", "8080:80", "-p", "127.0.0.1:8081:80"]);
    for url in ["127.0.0.1:8080", "127.0.0.1:8081"] {
        assert_eq!(wait_for(url, 10, || fetch(&world, url)), "web");
    }
    let gateway = world.inspect("web", "{{.NetworkSettings.Gateway}}");
    assert_eq!(fetch(&world, &format!("{gateway}:8080")).as_deref(), Some("web"));
    assert_eq!(fetch(&world, &format!("{gateway}:8081")), None, "bound to loopback only");
    assert!(world.ok(&["ps", "--format", "{{.Ports}}"]).contains("0.0.0.0:8080->80/tcp"));
    world
        .bulkhead(&["run", "-d", "--name", "second", "-p", "8080:80", "busybox", "sleep", "600"])
        .fails(125, &["8080"]);
    world.bulkhead(&["rm", "-f", "second"]);
    world.ok(&["rm", "-f", "web"]);
    assert_eq!(fetch(&world, "127.0.0.1:8080"), None, "gone with the container");
    server(&world, "again", &["-p", "8080:80"]);
    assert_eq!(wait_for("the same port again", 10, || fetch(&world, "127.0.0.1:8080")), "again");
}

#[test]
fn the_system_chooses_a_port_and_udp_works() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "web", &["-p", "80"]);
    let port = world.inspect("web", "{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}");
    assert_eq!(wait_for("the chosen port", 10, || fetch(&world, &format!("127.0.0.1:{port}"))), "web");
    helper(&world, "udp", "5300:53/udp");
    let gateway = world.inspect("udp", "{{.NetworkSettings.Gateway}}");
    wait_for("an echo over UDP", 15, || {
        ask(&world, &format!("{gateway}:5300"), b"hello").filter(|answer| answer == b"hello")
    });
}

#[test]
fn host_network_serves_a_low_port() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "host", &["--net=host"]);
    assert_eq!(wait_for("port 80 of the host", 10, || fetch(&world, "127.0.0.1:80")), "host");
    let link = world.ok(&["exec", "host", "readlink", "/proc/self/ns/net"]);
    assert_eq!(link, world.host("readlink", &["/proc/self/ns/net"]).ok());
    let enforced = world.inspect("host", "{{json .Enforced}}");
    assert!(
        enforced.contains("net=host") || enforced.contains("--net"),
        "why the user namespace is the host's is said: {enforced}"
    );
}

#[test]
fn files_of_names_say_what_was_asked_for() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let flags = ["--dns", "9.9.9.9", "--dns-search", "example.org", "--dns-option", "ndots:3"];
    let show = |network: &[&str]| {
        let mut arguments = vec!["run", "--rm", "--add-host", "db:10.1.2.3"];
        arguments.extend(flags.iter().chain(network));
        arguments.extend(["busybox", "cat", "/etc/resolv.conf", "/etc/hosts"]);
        world.ok(&arguments)
    };
    let alone = show(&["--network", "none"]);
    for word in ["nameserver 9.9.9.9", "search example.org", "options ndots:3", "10.1.2.3\tdb"] {
        assert!(alone.contains(word), "{word} in {alone}");
    }
    // On a bridge the container asks us, and we ask 9.9.9.9.
    let bridged = show(&["--add-host", "up:host-gateway"]);
    for word in ["nameserver 127.0.0.11", "search example.org", "options ndots:3", "10.1.2.3\tdb", "\tup"] {
        assert!(bridged.contains(word), "{word} in {bridged}");
    }
}

/// Answers every question for an address with 192.0.2.7, others with no record; returns when asked for `end`.
fn name_server(socket: &UdpSocket) {
    let mut packet = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut packet) else { return };
        let question = &packet[..length];
        if question == b"end" {
            return;
        }
        // Header, then one question that ends with type and class.
        let name_end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap() + 1;
        let kind = u16::from_be_bytes([question[name_end], question[name_end + 1]]);
        let mut answer = question[..name_end + 4].to_vec();
        answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(kind == 1), 0, 0, 0, 0]);
        if kind == 1 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
        }
        socket.send_to(&answer, from).unwrap();
    }
}

#[test]
fn names_are_asked_of_the_hosts_servers() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let socket = world.within(|| UdpSocket::bind("127.0.0.1:53").unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| name_server(&socket));
        let seen = world.bulkhead(&["run", "--rm", "--dns", "127.0.0.1", "busybox", "nslookup", "host.example.org"]);
        world.within(|| UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"end", "127.0.0.1:53").unwrap());
        assert!(seen.stdout.contains("192.0.2.7"), "{seen:?}");
    });
}

#[test]
fn containers_are_linked_by_name() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "db", &[]);
    let seen = wait_for("the linked server", 10, || {
        let seen =
            world.bulkhead(&["run", "--rm", "--link", "db:store", "busybox", "wget", "-q", "-O", "-", "http://store/"]);
        (seen.code == 0).then_some(seen.stdout)
    });
    assert_eq!(seen.trim(), "db");
    world.bulkhead(&["run", "--rm", "--link", "nobody:x", "busybox", "true"]).fails(125, &["nobody"]);
}

#[test]
fn ranges_exposed_ports_and_the_port_verb() {
    requires!(root);
    let world = World::new();
    world.busybox();
    let base = ["-p", "8000-8002:7000-7002", "-p", "127.0.0.1::90", "-p", "53:53/udp", "--expose", "70", "-P"];
    let mut arguments = vec!["run", "-d", "--name", "many"];
    arguments.extend(base);
    arguments.extend(["busybox", "sleep", "600"]);
    world.ok(&arguments);
    let all = world.ok(&["port", "many"]);
    for line in ["7000/tcp -> 0.0.0.0:8000", "7002/tcp -> 0.0.0.0:8002", "53/udp -> 0.0.0.0:53", "90/tcp -> 127.0.0.1:"]
    {
        assert!(all.contains(line), "{line} in {all}");
    }
    assert!(all.lines().any(|line| line.starts_with("70/tcp -> 0.0.0.0:")), "-P publishes what is exposed: {all}");
    assert_eq!(world.ok(&["port", "many", "7001"]).lines().next(), Some("0.0.0.0:8001"));
    assert_eq!(world.ok(&["port", "many", "53/udp"]).lines().next(), Some("0.0.0.0:53"));
    world.bulkhead(&["port", "many", "1234"]).fails(1, &["1234"]);
    for bad in ["8000-8001:1-3", "70000:80", "1.2.3:80:80", "80/xxx", "a:80"] {
        world.bulkhead(&["run", "--rm", "-p", bad, "busybox", "true"]).fails(125, &[bad]);
    }
}

#[test]
fn the_servers_see_who_calls() {
    requires!(root);
    let world = World::new();
    world.busybox();
    // A neighbour of the host: 192.0.2.2 behind a pair of links.
    let netns = world.netns.clone().unwrap();
    let there = format!("{netns}n");
    host("ip", &["netns", "add", &there]).ok();
    host("ip", &["-n", &netns, "link", "add", "ne0", "type", "veth", "peer", "name", "ne1", "netns", &there]).ok();
    for (place, link, address) in [(&netns, "ne0", "192.0.2.1/24"), (&there, "ne1", "192.0.2.2/24")] {
        host("ip", &["-n", place, "addr", "add", address, "dev", link]).ok();
        host("ip", &["-n", place, "link", "set", link, "up"]).ok();
    }
    helper(&world, "web", "8080:80");
    let call = || {
        let seen = host(
            "ip",
            &["netns", "exec", &there, "timeout", "3", "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/8080; cat <&3"],
        );
        seen.stdout.contains("192.0.2.2").then_some(())
    };
    wait_for("the neighbour's own address to be seen", 10, call);
    host("ip", &["-n", &netns, "link", "del", "ne0"]).ok();
    host("ip", &["netns", "del", &there]).ok();
}

#[test]
fn nothing_stays_when_the_shim_is_killed() {
    requires!(root, program "nft");
    let world = World::new();
    world.busybox();
    server(&world, "web", &["-p", "8080:80"]);
    let netns = world.netns.clone().unwrap();
    let ends = || host("ip", &["-n", &netns, "-o", "link", "show", "type", "veth"]).stdout.lines().count();
    let entries = || world.host("nft", &["list", "ruleset"]).ok().matches("8080").count();
    assert!(ends() == 1 && entries() > 0);
    world.kill_shim("web");
    wait_for("the next command to see it", 10, || {
        (world.inspect("web", "{{.State.Status}}") == "exited").then_some(())
    });
    assert_eq!(entries(), 0);
    wait_for("the pair of links to go", 10, || (ends() == 0).then_some(()));
    server(&world, "other", &["-p", "8080:80"]);
    assert_eq!(wait_for("the port again", 10, || fetch(&world, "127.0.0.1:8080")), "other");
}

#[test]
fn an_idle_bridge_is_pruned_and_made_again() {
    requires!(root, program "nft");
    let world = World::new();
    world.busybox();
    let netns = world.netns.clone().unwrap();
    let bridges = || host("ip", &["-n", &netns, "-o", "link", "show", "type", "bridge"]).stdout.lines().count();
    server(&world, "web", &["-p", "8080:80"]);
    let subnet = world.ok(&["network", "inspect", "--format", "{{(index .IPAM.Config 0).Subnet}}", "bridge"]);
    let address = world.inspect("web", "{{.NetworkSettings.IPAddress}}");
    assert!(
        subnet.ends_with(".0.0/16") && address.starts_with(subnet.trim_end_matches("0.0/16")),
        "{subnet} {address}"
    );
    assert!(world.ok(&["network", "inspect", "bridge"]).contains("\"web\""));
    assert_eq!(world.ok(&["network", "prune", "-f"]), "", "it is in use");
    assert_eq!((bridges(), fetch(&world, "127.0.0.1:8080").is_some()), (1, true));
    world.ok(&["rm", "-f", "web"]);
    assert_eq!(bridges(), 1, "an idle bridge stays for the next");
    assert!(world.ok(&["network", "prune", "-f"]).contains("bridge"));
    assert_eq!((bridges(), world.host("nft", &["list", "tables"]).ok().as_str()), (0, ""));
    server(&world, "again", &["-p", "8080:80"]);
    assert_eq!(wait_for("the port again", 10, || fetch(&world, "127.0.0.1:8080")), "again");
}

#[test]
fn addresses_and_ports_stay_over_a_restart() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "web", &["-p", "8080:80"]);
    wait_for("the first life", 10, || fetch(&world, "127.0.0.1:8080"));
    world.ok(&["restart", "-t", "0", "web"]);
    assert_eq!(wait_for("the second life", 10, || fetch(&world, "127.0.0.1:8080")), "web");
}

#[test]
fn a_bridge_taken_away_is_repaired_by_the_next_run() {
    requires!(root);
    let world = World::new();
    world.busybox();
    server(&world, "one", &["-p", "8080:80"]);
    world.ok(&["rm", "-f", "one"]);
    let netns = world.netns.clone().unwrap();
    let links = host("ip", &["-n", &netns, "-o", "link", "show", "type", "bridge"]).stdout;
    for link in links.lines().filter_map(|line| line.split(": ").nth(1)) {
        host("ip", &["-n", &netns, "link", "del", link]).ok();
    }
    world.host("nft", &["flush", "ruleset"]).ok();
    server(&world, "two", &["-p", "8080:80"]);
    assert_eq!(wait_for("the repaired port", 10, || fetch(&world, "127.0.0.1:8080")), "two");
}

#[test]
fn rules_go_with_their_containers() {
    requires!(root, program "nft");
    let world = World::new();
    world.busybox();
    let rules = || {
        let text = world.host("nft", &["list", "ruleset"]).ok();
        text.lines().filter(|line| line.contains("8080") || line.contains("dnat to")).count()
    };
    for _ in 0..3 {
        server(&world, "web", &["-p", "8080:80"]);
        world.ok(&["rm", "-f", "web"]);
    }
    assert_eq!(rules(), 0);
}
