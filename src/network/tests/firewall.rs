//! What other tables do to us, and ports two want.

use super::{on_host, port, request};
use crate::network::{NetworkError, attach, down, plan};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::AsFd;

#[test]
fn a_table_that_drops_what_we_forward_is_named_with_the_way_out() {
    on_host(|host| {
        let quiet = host.start(&[]).unwrap();
        assert!(quiet.attached.warnings.iter().all(|w| !w.contains("drops")), "{:?}", quiet.attached.warnings);
        host.run("nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'");
        let loud = host.start(&[]).unwrap();
        let warning = loud.attached.warnings.iter().find(|w| w.contains("drops")).unwrap();
        assert!(warning.contains("chain FORWARD of table ip filter"), "{warning}");
        // The commands it names are the cure.
        for command in warning.split("; ").filter_map(|part| part.split("nft ").nth(1)) {
            host.run(&format!("nft {command}"));
        }
        assert!(host.start(&[]).unwrap().attached.warnings.iter().all(|w| !w.contains("drops")));
    });
}

#[test]
fn forwarding_is_enabled_only_for_a_bridge_said_and_set_back() {
    on_host(|host| {
        let value = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned();
        host.run("echo 0 > /proc/sys/net/ipv4/ip_forward");
        let first = host.start(&[]).unwrap();
        assert_eq!(value(), "1");
        assert!(first.attached.warnings.iter().any(|w| w.contains("ip_forward")));
        assert!(host.start(&[]).unwrap().attached.warnings.is_empty());
        down(&host.paths).unwrap();
        assert_eq!(value(), "0");
        // What the host had enabled itself stays.
        host.run("echo 1 > /proc/sys/net/ipv4/ip_forward");
        assert!(host.start(&[]).unwrap().attached.warnings.is_empty());
        down(&host.paths).unwrap();
        assert_eq!(value(), "1");
    });
}

#[test]
fn a_port_somebody_has_is_refused_by_name() {
    on_host(|host| {
        let first = host.start(&["8080:80", "127.0.0.1:8081:80", "5353:53/udp"]).unwrap();
        for text in ["8080:81", "127.0.0.1:8080:80", "8081:80", "127.0.0.1:8081:1", "5353:53/udp"] {
            let error = plan(&request(&[port(text)]), &host.paths).unwrap_err();
            assert!(
                matches!(&error, NetworkError::PortTaken { owner, .. } if *owner == first.id.short()),
                "{text}: {error}"
            );
            assert!(error.to_string().contains("port is already allocated"));
        }
        let _tcp = TcpListener::bind("0.0.0.0:9000").unwrap();
        let _udp = UdpSocket::bind("127.0.0.1:9001").unwrap();
        for text in ["9000:80", "9001:80/udp"] {
            let error = plan(&request(&[port(text)]), &host.paths).unwrap_err();
            assert!(matches!(error, NetworkError::PortInUse { .. }), "{text}: {error}");
        }
        // TCP and UDP are two things; an address that is not the host's is an error of its own.
        host.start(&["8080:80/udp"]).unwrap();
        let error = plan(&request(&[port("203.0.113.9:80:80")]), &host.paths).unwrap_err();
        assert!(matches!(error, NetworkError::Listen { .. }), "{error}");
        // A refused container leaves no address behind.
        assert_eq!(crate::network::ipam::reservations(&host.paths).unwrap().len(), 2);
    });
}

#[test]
fn port_zero_is_chosen_and_told() {
    on_host(|host| {
        let a = host.start(&["0:80", "127.0.0.1:0:81"]).unwrap();
        let ports: Vec<u16> = a.attached.published.iter().map(|p| p.host_port).collect();
        assert_eq!(ports.len(), 3, "both families of the first, and the second");
        assert!(ports.iter().all(|port| *port >= 1024));
        assert!(host.rules().contains(&format!("6 . {} : {} . 80", ports[0], a.address())));
    });
}

#[test]
fn the_tables_read_like_this() {
    on_host(|host| {
        let a = host.start(&["8080:80"]).unwrap();
        let rules = host.rules();
        for line in [
            "ip daddr 127.0.0.0/8 drop",
            "dnat ip to ip daddr . meta l4proto . th dport map @publish-on",
            "fib daddr type local dnat ip to meta l4proto . th dport map @publish",
            "ip saddr @subnets oifname != @bridges oifname != \"lo\" masquerade",
            "oifname @bridges jump to-container",
            "iifname . oifname @same accept",
            "iifname . ether saddr . ip saddr != @allowed drop",
        ] {
            assert!(rules.contains(line), "{line} is not in:\n{rules}");
        }
        drop(a);
    });
}

#[test]
fn a_thousand_ports_are_one_start() {
    on_host(|host| {
        let ports: Vec<_> = (20_000..21_000).map(|p| port(&format!("127.0.0.1:{p}:{p}"))).collect();
        let namespace = super::new_namespace();
        let mut wide = request(&ports[..500]);
        wide.ports.iter_mut().for_each(|p| p.address = None);
        let plan = plan(&wide, &host.paths).unwrap();
        let attached = attach(plan, Some(namespace.as_fd()), &host.paths).unwrap();
        assert_eq!(attached.handles.forwards.len(), 500);
        assert!(host.rules().contains("20499"));
    });
}
