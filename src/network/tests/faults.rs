//! Kills, removals behind our back, races, and what is left.

use super::{Host, new_namespace, on_host, port, request};
use crate::network::endpoint::attach_until;
use crate::network::{Cause, Installation, NetworkError, attach, detach, down, gc, ipam, journal, prune};
use crate::sys::netns::in_network_namespace;
use std::os::fd::AsFd;

#[test]
fn two_hundred_starts_and_ends_leave_nothing() {
    on_host(|host| {
        let first = host.start(&["8080:80"]).unwrap();
        let before = host.rules();
        let open = || std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let descriptors = open();
        for _ in 0..200 {
            let container = host.start(&["127.0.0.1:0:80", "0:80", "0:53/udp"]).unwrap();
            detach(&container.id, &host.paths).unwrap();
        }
        detach(&first.id, &host.paths).unwrap();
        detach(&first.id, &host.paths).unwrap();
        drop(first);
        host.wait_for_links_to_go();
        assert!(open() <= descriptors + 8, "descriptors leak");
        assert_ne!(host.rules(), before);
        assert_eq!(ipam::reservations(&host.paths).unwrap(), []);
        assert_eq!(journal::owners(&host.paths).unwrap().len(), 1, "the network's own");
        assert!(!host.rules().contains("bv"), "{}", host.rules());
        down(&host.paths).unwrap();
        host.assert_bare();
    });
}

#[test]
fn a_start_killed_after_any_operation_is_cleaned_up_by_the_next_collection() {
    on_host(|host| {
        let living = host.start(&["7000:70"]).unwrap();
        let before = host.rules();
        for killed_after in 0.. {
            let request = request(&[port("8080:80"), port("127.0.0.1:8081:80")]);
            let namespace = new_namespace();
            let planned = host.plan(&request).unwrap();
            match attach_until(planned, Some(namespace.as_fd()), &host.paths, Some(killed_after)) {
                Err(NetworkError::Apply { source: Cause::Killed, .. }) => {}
                Err(error) => panic!("{error:?}"),
                Ok(_) => {
                    assert!(killed_after > 6, "all operations were passed");
                    detach(&request.id, &host.paths).unwrap();
                    break;
                }
            }
            gc(&host.paths, &|id| *id == living.id).unwrap();
            drop(namespace);
            host.wait_for_only(&living);
            assert_eq!(host.rules(), before, "killed after {killed_after}");
            assert_eq!(ipam::reservations(&host.paths).unwrap().len(), 1);
            // The same port can be had at once.
            let again = host.start(&["8080:80"]).unwrap();
            detach(&again.id, &host.paths).unwrap();
        }
    });
}

#[test]
fn a_start_killed_before_it_was_attached_gives_its_address_back() {
    on_host(|host| {
        let request = request(&[port("8080:80")]);
        drop(host.plan(&request).unwrap());
        gc(&host.paths, &|id| *id == request.id).unwrap();
        assert_eq!(ipam::reservations(&host.paths).unwrap().len(), 1, "still alive");
        gc(&host.paths, &|_| false).unwrap();
        assert_eq!(ipam::reservations(&host.paths).unwrap(), []);
        drop(host.plan(&request).unwrap());
        detach(&request.id, &host.paths).unwrap();
        assert_eq!(ipam::reservations(&host.paths).unwrap(), []);
    });
}

#[test]
fn a_port_of_one_that_has_ended_is_taken_over_before_its_clean_up() {
    on_host(|host| {
        let first = host.start(&["8080:80", "8081:81"]).unwrap();
        let id = first.id.clone();
        // Its shim has gone, and with it the sockets; nobody has cleaned up.
        drop(first);
        let second = host.start(&["8080:80"]).unwrap();
        let target = format!("6 . 8080 : {} . 80", second.address());
        assert!(host.rules().contains(&target), "{}", host.rules());
        detach(&id, &host.paths).unwrap();
        assert!(host.rules().contains(&target), "the late clean-up takes its own only: {}", host.rules());
        assert!(!host.rules().contains("8081"));
        detach(&second.id, &host.paths).unwrap();
        assert!(!host.rules().contains("8080"));
        down(&host.paths).unwrap();
    });
}

#[test]
fn a_network_is_pruned_when_nobody_is_on_it() {
    on_host(|host| {
        let container = host.start(&["8080:80"]).unwrap();
        assert_eq!(prune(&host.paths).unwrap(), Vec::<String>::new());
        detach(&container.id, &host.paths).unwrap();
        drop(container);
        assert_eq!(prune(&host.paths).unwrap(), ["bridge"]);
        host.assert_bare();
        assert_eq!(prune(&host.paths).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_failed_attach_is_taken_back_at_once() {
    on_host(|host| {
        let first = host.start(&[]).unwrap();
        let before = host.rules();
        let namespace = new_namespace();
        // Something that calls itself eth0 is there already.
        in_network_namespace(namespace.as_fd(), || host.run("ip link add eth0 type bridge")).unwrap();
        let request = request(&[port("8080:80")]);
        let error = attach(host.plan(&request).unwrap(), Some(namespace.as_fd()), &host.paths).unwrap_err();
        assert!(error.to_string().contains("peer eth0"), "{error}");
        assert_eq!(host.rules(), before);
        assert_eq!(ipam::reservations(&host.paths).unwrap().len(), 1);
        host.wait_for_only(&first);
    });
}

#[test]
fn what_was_removed_behind_our_back_is_made_again_for_the_living_too() {
    on_host(|host| {
        let bridge = Installation::of(&host.paths).bridge;
        let table = Installation::of(&host.paths).table;
        let old = host.start(&["8080:80"]).unwrap();
        let listener = old.inside(|| std::net::TcpListener::bind("0.0.0.0:80").unwrap());
        listener.set_nonblocking(true).unwrap();
        let works = |label: &str| {
            let new = host.start(&[]).unwrap_or_else(|error| panic!("{label}: {error:?}"));
            let patience = std::time::Duration::from_secs(5);
            let reach = |address: std::net::Ipv4Addr, port| {
                new.inside(|| std::net::TcpStream::connect_timeout(&(address, port).into(), patience).is_ok())
            };
            assert!(reach(old.address(), 80), "{label}: neighbour");
            assert!(reach(old.attached.attachment.gateway.unwrap(), 8080), "{label}: published port");
            assert_eq!(host.rules().matches(": 172.").count(), 1, "{label}: {}", host.rules());
            detach(&new.id, &host.paths).unwrap();
        };
        works("untouched");
        for (label, line) in [
            ("all rules", "nft flush ruleset".to_owned()),
            ("one table", format!("nft delete table inet {table}")),
            ("the guard", format!("nft delete table bridge {table}")),
            ("a chain's rules", format!("nft flush chain inet {table} prerouting")),
            ("bridge", format!("ip link del {bridge}")),
            ("bridge down", format!("ip link set {bridge} down")),
            ("address", format!("ip addr flush dev {bridge}")),
            ("forwarding", "echo 0 > /proc/sys/net/ipv4/ip_forward".to_owned()),
            ("everything", format!("nft flush ruleset; ip link del {bridge}")),
        ] {
            host.run(&line);
            works(label);
        }
    });
}

#[test]
fn something_foreign_under_our_bridges_name_is_left_alone_and_named() {
    on_host(|host| {
        let bridge = Installation::of(&host.paths).bridge;
        host.run(&format!("ip link add {bridge} type veth peer name other"));
        let error = host.start(&[]).err().unwrap();
        let NetworkError::Apply { source: Cause::Foreign(name), .. } = error else { panic!("{error:?}") };
        assert_eq!(name, bridge);
    });
}

#[test]
fn the_default_subnet_avoids_the_hosts_networks() {
    on_host(|host| {
        host.run("ip link add other type bridge; ip addr add 172.30.4.1/24 dev other; ip link set other up");
        let a = host.start(&[]).unwrap();
        assert_eq!(a.attached.attachment.address.unwrap().first(), std::net::Ipv4Addr::new(172, 29, 0, 0));
        // After a reboot a network that nobody uses yet moves away from a route that came in between.
        drop(a);
        down(&host.paths).unwrap();
        host.run("ip addr add 172.29.0.9/32 dev other");
        let b = host.start(&[]).unwrap();
        assert_eq!(b.attached.attachment.address.unwrap().first(), std::net::Ipv4Addr::new(172, 31, 0, 0));
    });
}

#[test]
fn parallel_starts_and_ends_do_not_disturb_each_other() {
    on_host(|host| {
        let work = |_: usize| {
            in_network_namespace(host.namespace.as_fd(), || {
                let containers: Vec<_> = (0..6).map(|_| host.start(&["0:80"]).unwrap()).collect();
                let addresses: Vec<_> = containers.iter().map(super::Container::address).collect();
                for container in &containers[..3] {
                    detach(&container.id, &host.paths).unwrap();
                }
                (addresses, containers)
            })
            .unwrap()
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|n| scope.spawn(move || work(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut all: Vec<_> = results.iter().flat_map(|(addresses, _)| addresses).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 24, "every endpoint has an address of its own");
        assert_eq!(ipam::reservations(&host.paths).unwrap().len(), 12);
        assert_eq!(host.rules().matches(": 172.").count(), 12);
        gc(&host.paths, &|_| false).unwrap();
        drop(results);
        down(&host.paths).unwrap();
        host.assert_bare();
    });
}

impl Host {
    fn wait_for_only(&self, living: &super::Container) {
        let owner = crate::network::Owner::Container(living.id.clone());
        let journal = journal::Journal::read(&self.paths, &owner).unwrap().unwrap();
        let own = journal.entries.iter().filter_map(|entry| entry.operation.link()).next().unwrap().to_owned();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.links().iter().any(|link| link.name.starts_with("bv") && link.name != own) {
            assert!(std::time::Instant::now() < deadline, "links left: {:?}", self.links());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
