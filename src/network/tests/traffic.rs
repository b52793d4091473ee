//! Who reaches whom.

use super::{Container, Host, new_namespace, on_host};
use crate::sys::netns::in_network_namespace;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::time::Duration;

const QUICK: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(5);

/// Connects and says whom the server saw; `None` when nothing answers.
fn ask(address: SocketAddr, patience: Duration) -> Option<SocketAddr> {
    let mut stream = TcpStream::connect_timeout(&address, patience).ok()?;
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.parse().ok()
}

/// Serves on a port inside, `count` times: tells each client its own address.
fn serve(container: &Container, port: u16, count: usize) -> std::thread::JoinHandle<()> {
    let listener = container.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    #[expect(clippy::disallowed_methods, reason = "a server of the test")]
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, peer) = listener.accept().unwrap();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    })
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

/// A neighbour of the host at 198.51.100.2 (the host is 198.51.100.1), which routes everything through the host.
fn neighbour(host: &Host) -> std::os::fd::OwnedFd {
    use crate::network::{netlink::Connection, route};
    let namespace = new_namespace();
    host.run("ip link add out0 type veth peer name out1; ip addr add 198.51.100.1/24 dev out0; ip link set out0 up");
    let mut connection = Connection::open(crate::sys::netlink::Family::Route).unwrap();
    route::move_link(&mut connection, "out1", namespace.as_fd()).unwrap();
    in_network_namespace(namespace.as_fd(), || {
        host.run("ip link set lo up; ip addr add 198.51.100.2/24 dev out1; ip link set out1 up; ip route add default via 198.51.100.1");
    })
    .unwrap();
    namespace
}

#[test]
fn container_and_host_and_neighbours_on_the_bridge_reach_each_other() {
    on_host(|host| {
        let (a, b) = (host.start(&[]).unwrap(), host.start(&[]).unwrap());
        serve(&a, 80, 2);
        // From the host.
        let seen = ask(at(a.address(), 80), LONG).unwrap();
        assert_eq!(seen.ip(), a.attached.attachment.gateway.unwrap());
        // From another container, which is seen with its own address.
        assert_eq!(b.inside(|| ask(at(a.address(), 80), LONG)).unwrap().ip(), b.address());
        // To the host.
        let listener = TcpListener::bind((a.attached.attachment.gateway.unwrap(), 9000)).unwrap();
        a.inside(|| TcpStream::connect_timeout(&listener.local_addr().unwrap(), LONG).unwrap());
    });
}

#[test]
fn a_published_port_is_reached_from_outside_with_the_source_address_kept() {
    on_host(|host| {
        let outside = neighbour(host);
        let a = host.start(&["8080:80", "198.51.100.1:8081:80", "9000:9000/udp"]).unwrap();
        serve(&a, 80, 3);
        for port in [8080, 8081] {
            let seen = in_network_namespace(outside.as_fd(), || ask(at(Ipv4Addr::new(198, 51, 100, 1), port), LONG));
            assert_eq!(seen.unwrap().unwrap().ip(), Ipv4Addr::new(198, 51, 100, 2), "{port}");
        }
        // The host itself, by an address that is not loopback.
        assert!(ask(at(Ipv4Addr::new(198, 51, 100, 1), 8080), LONG).is_some());
        let server = a.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
        server.set_read_timeout(Some(LONG)).unwrap();
        in_network_namespace(outside.as_fd(), || {
            let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            client.set_read_timeout(Some(LONG)).unwrap();
            client.connect((Ipv4Addr::new(198, 51, 100, 1), 9000)).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 16];
            let (_, peer) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(peer.ip(), Ipv4Addr::new(198, 51, 100, 2));
            server.send_to(b"answer", peer).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 6);
        })
        .unwrap();
    });
}

#[test]
fn what_goes_out_carries_the_hosts_address() {
    on_host(|host| {
        let outside = neighbour(host);
        let a = host.start(&[]).unwrap();
        let listener = in_network_namespace(outside.as_fd(), || TcpListener::bind("0.0.0.0:7000").unwrap()).unwrap();
        let _stream = a.inside(|| TcpStream::connect_timeout(&at(Ipv4Addr::new(198, 51, 100, 2), 7000), LONG).unwrap());
        assert_eq!(listener.accept().unwrap().1.ip(), Ipv4Addr::new(198, 51, 100, 1));
    });
}

#[test]
fn a_port_that_is_not_published_is_not_reached_from_outside() {
    on_host(|host| {
        let outside = neighbour(host);
        let a = host.start(&["8080:80"]).unwrap();
        serve(&a, 81, 1);
        // The neighbour knows the way: it routes everything through the host.
        let direct = in_network_namespace(outside.as_fd(), || ask(at(a.address(), 81), QUICK)).unwrap();
        assert_eq!(direct, None);
        assert!(ask(at(a.address(), 81), LONG).is_some());
    });
}

#[test]
fn a_container_reaches_published_ports_by_the_hosts_address_its_own_too() {
    on_host(|host| {
        let _outside = neighbour(host);
        let (a, b) = (host.start(&["8080:80"]).unwrap(), host.start(&[]).unwrap());
        serve(&a, 80, 3);
        for from in [&b, &a] {
            assert!(from.inside(|| ask(at(Ipv4Addr::new(198, 51, 100, 1), 8080), LONG)).is_some());
        }
        assert!(b.inside(|| ask(at(b.attached.attachment.gateway.unwrap(), 8080), LONG)).is_some());
    });
}

#[test]
fn networks_of_two_installations_do_not_meet() {
    on_host(|host| {
        let dir = tempfile::tempdir().unwrap();
        let other = crate::store::Paths { root: dir.path().join("root"), run: dir.path().join("run") };
        std::fs::create_dir_all(&other.run).unwrap();
        let a = host.start(&[]).unwrap();
        let other = Host { paths: other, namespace: super::current_network_namespace().unwrap(), _dir: dir };
        let b = other.start(&[]).unwrap();
        assert!(!a.attached.attachment.address.unwrap().overlaps(b.attached.attachment.address.unwrap()));
        serve(&a, 80, 2);
        assert_eq!(b.inside(|| ask(at(a.address(), 80), QUICK)), None);
        assert!(ask(at(a.address(), 80), LONG).is_some());
    });
}

#[test]
fn cve_2020_8558_loopback_services_of_the_host_are_not_reached_from_the_bridge() {
    on_host(|host| {
        let a = host.start(&["127.0.0.1:8080:80"]).unwrap();
        let bridge = super::Installation::of(&host.paths).bridge;
        let gateway = a.attached.attachment.gateway.unwrap();
        let secret = TcpListener::bind("127.0.0.1:10250").unwrap();
        secret.set_nonblocking(true).unwrap();
        // The attacker owns its namespace: 127.0.0.1 is no longer its own, but lies behind the host.
        a.inside(|| {
            host.run(&format!(
                "ip addr flush dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; ip route add 127.0.0.1 via {gateway} src {}",
                a.address()
            ));
        });
        let attack = || a.inside(|| TcpStream::connect_timeout(&"127.0.0.1:10250".parse().unwrap(), QUICK).is_ok());
        let value =
            |name: &str| std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet")).unwrap();
        assert_eq!((value("all").trim(), value(&bridge).trim()), ("0", "0"));
        assert!(!attack());
        // Were it switched on by somebody else, our rule still holds.
        host.run(&format!("echo 1 > /proc/sys/net/ipv4/conf/{bridge}/route_localnet"));
        assert!(!attack());
        // The attack itself is sound: without our table it succeeds.
        host.run("nft flush ruleset");
        assert!(attack());
    });
}

#[test]
fn cve_2020_13401_no_router_advertisements_are_taken_or_passed_on() {
    on_host(|host| {
        let (a, b) = (host.start(&[]).unwrap(), host.start(&[]).unwrap());
        let bridge = super::Installation::of(&host.paths).bridge;
        let read = |path: &str| std::fs::read_to_string(path).unwrap().trim().to_owned();
        assert_eq!(read(&format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra")), "0");
        assert_eq!(read(&format!("/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6")), "1");
        for container in [&a, &b] {
            container.inside(|| assert_eq!(read("/proc/sys/net/ipv6/conf/eth0/disable_ipv6"), "1"));
        }
        // A workload with NET_ADMIN may open IPv6 for itself; its neighbour hears no advertisement from it.
        let speak = |kind: u8| {
            a.inside(|| {
                host.run(
                    "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr replace fe80::66/64 dev eth0 nodad",
                );
                send_icmp6(kind);
            });
        };
        b.inside(|| {
            host.run("echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr replace fe80::77/64 dev eth0 nodad")
        });
        let ear = b.inside(|| {
            let fd = rustix::net::socket(
                rustix::net::AddressFamily::INET6,
                rustix::net::SocketType::RAW,
                Some(rustix::net::ipproto::ICMPV6),
            )
            .unwrap();
            let socket = UdpSocket::from(fd);
            socket.set_read_timeout(Some(QUICK)).unwrap();
            socket
        });
        let hears = |kind: u8| {
            speak(kind);
            let mut buffer = [0; 256];
            while let Ok(length) = ear.recv(&mut buffer) {
                if length > 0 && buffer[0] == kind {
                    return true;
                }
            }
            false
        };
        // The bridge may still be learning that the ports are up.
        assert!((0..20).any(|_| hears(128)), "an echo request passes, so that the next line says something");
        assert!(!hears(134));
    });
}

/// Sends one ICMPv6 message of a type to all nodes of `eth0`.
fn send_icmp6(kind: u8) {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};
    let fd = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
    sockopt::set_ipv6_multicast_hops(&fd, 255).unwrap();
    let index = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
    let scope = index.lines().find(|line| line.ends_with("eth0")).unwrap().split_whitespace().nth(1).unwrap();
    let to = std::net::SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, u32::from_str_radix(scope, 16).unwrap());
    let mut message = [0; 16];
    message[0] = kind;
    sendto(&fd, &message, SendFlags::empty(), &to).unwrap();
}

#[test]
fn an_endpoint_speaks_with_no_other_address() {
    on_host(|host| {
        let (a, b) = (host.start(&[]).unwrap(), host.start(&[]).unwrap());
        serve(&b, 80, 2);
        let other = Ipv4Addr::from(u32::from(a.address()) + 100);
        a.inside(|| host.run(&format!("ip addr add {other}/16 dev eth0")));
        let from = |address: Ipv4Addr| a.inside(|| super::connect_from(address, at(b.address(), 80), QUICK));
        assert!(from(a.address()));
        assert!(!from(other));
        // Nor is it answered for in ARP.
        b.inside(|| assert!(TcpStream::connect_timeout(&at(other, 80), QUICK).is_err()));
    });
}

#[test]
fn names_asked_at_127_0_0_11_arrive_at_the_shims_sockets_and_port_53_stays_free() {
    on_host(|host| {
        let a = host.start(&[]).unwrap();
        assert_eq!(a.attached.handles.dns_servers, Some(vec!["192.0.2.53:53".parse().unwrap()]));
        let mut descriptors = a.attached.descriptors.iter().map(|fd| fd.try_clone().unwrap());
        let udp = UdpSocket::from(descriptors.next().unwrap());
        let tcp = TcpListener::from(descriptors.next().unwrap());
        udp.set_read_timeout(Some(LONG)).unwrap();
        a.inside(|| {
            // A workload that serves names itself.
            let _own_udp = UdpSocket::bind("0.0.0.0:53").unwrap();
            let _own_tcp = TcpListener::bind("0.0.0.0:53").unwrap();
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            client.set_read_timeout(Some(LONG)).unwrap();
            client.connect("127.0.0.11:53").unwrap();
            client.send(b"who").unwrap();
            let mut buffer = [0; 16];
            let (length, peer) = udp.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], b"who");
            udp.send_to(b"me", peer).unwrap();
            // A connected socket takes the answer only from the address and port it asked.
            assert_eq!(client.recv(&mut buffer).unwrap(), 2);
            let mut stream = TcpStream::connect_timeout(&"127.0.0.11:53".parse().unwrap(), LONG).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            let (mut served, _) = tcp.accept().unwrap();
            served.write_all(&[7; 9000]).unwrap();
            drop(served);
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer.len(), 9000);
        });
    });
}

#[test]
fn loopback_publishing_is_a_listener_of_the_host_and_nothing_else() {
    on_host(|host| {
        let outside = neighbour(host);
        let a = host.start(&["127.0.0.1:8080:80"]).unwrap();
        assert_eq!(a.attached.handles.forwards, [(super::Protocol::Tcp, at(a.address(), 80))]);
        let listener = TcpListener::from(a.attached.descriptors[2].try_clone().unwrap());
        let _client = TcpStream::connect_timeout(&"127.0.0.1:8080".parse().unwrap(), LONG).unwrap();
        listener.accept().unwrap();
        serve(&a, 80, 1);
        let leaked = in_network_namespace(outside.as_fd(), || ask(at(Ipv4Addr::new(198, 51, 100, 1), 8080), QUICK));
        assert_eq!(leaked.unwrap(), None);
        assert!(!host.rules().contains("8080"));
    });
}
