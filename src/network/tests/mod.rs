//! Networks for real: one namespace plays the host, others the containers and the neighbours. Every test makes its own
//! with `unshare`; the machine's own links and rules are never touched. Threads stand in for processes: a network
//! namespace belongs to a thread.

mod cost;
mod faults;
mod firewall;
mod traffic;

use super::*;
use crate::base::ContainerId;
use crate::store::Paths;
use crate::sys::netns::{current_network_namespace, in_network_namespace};
use route::Link;
use std::os::fd::{AsFd, OwnedFd};

/// A host of its own: the thread's network namespace and a state directory.
pub(super) struct Host {
    pub paths: Paths,
    pub namespace: OwnedFd,
    _dir: tempfile::TempDir,
}

/// Runs a test on a host of its own; without the right to make one it is skipped, loudly.
pub(super) fn on_host(test: impl FnOnce(&Host) + Send) {
    std::thread::scope(|scope| {
        let run = || {
            // Descriptors of this thread's own, so that they can be counted beside other tests.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            crate::sys::process::close_all_from(3, &[]).unwrap();
            let Some(namespace) = enter_new_namespace() else {
                return;
            };
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths { root: dir.path().join("root"), run: dir.path().join("run") };
            std::fs::create_dir_all(&paths.run).unwrap();
            let host = Host { paths, namespace, _dir: dir };
            test(&host);
        };
        // A panic of the test is this thread's panic.
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn enter_new_namespace() -> Option<OwnedFd> {
    if let Err(error) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET) {
        crate::tests::skip(&format!("cannot make a network namespace: {error}"));
        return None;
    }
    let mut connection = netlink::Connection::open(crate::sys::netlink::Family::Route).unwrap();
    route::set_up(&mut connection, "lo", true).unwrap();
    Some(current_network_namespace().unwrap())
}

/// Makes a namespace with nothing in it, as a container's is born.
pub(super) fn new_namespace() -> OwnedFd {
    let make = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        current_network_namespace().unwrap()
    };
    std::thread::scope(|scope| scope.spawn(make).join().unwrap())
}

/// A container as the network sees it.
pub(super) struct Container {
    pub id: ContainerId,
    pub namespace: OwnedFd,
    pub attached: Attached,
}

impl Container {
    pub(super) fn address(&self) -> std::net::Ipv4Addr {
        self.attached.attachment.address.unwrap().address
    }

    /// Acts inside.
    pub(super) fn inside<T>(&self, act: impl FnOnce() -> T) -> T {
        in_network_namespace(self.namespace.as_fd(), act).unwrap()
    }
}

/// Connects with one of our addresses as the source.
pub(super) fn connect_from(
    source: std::net::Ipv4Addr,
    to: std::net::SocketAddr,
    patience: std::time::Duration,
) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let fd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    bind(&fd, &std::net::SocketAddrV4::new(source, 0)).unwrap();
    let _ = connect(&fd, &to);
    let mut poll = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::OUT)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: patience.as_nanos().try_into().unwrap() };
    rustix::event::poll(&mut poll, Some(&timeout)).unwrap() == 1
        && rustix::net::sockopt::socket_error(&fd).unwrap().is_ok()
}

pub(super) fn request(ports: &[PortRequest]) -> EndpointRequest {
    EndpointRequest {
        id: ContainerId::generate(),
        mode: Mode::Network(DEFAULT_NETWORK.to_owned()),
        ports: ports.to_vec(),
        dns_servers: vec!["192.0.2.53:53".parse().unwrap()],
    }
}

pub(super) fn port(text: &str) -> PortRequest {
    let (place, inside) = text.rsplit_once(':').unwrap();
    let (inside, protocol) = inside.split_once('/').unwrap_or((inside, "tcp"));
    let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
    let (address, host_port) = match place.rsplit_once(':') {
        Some((address, port)) => (Some(address.trim_matches(['[', ']']).parse().unwrap()), port),
        None => (None, place),
    };
    PortRequest {
        address,
        host_port: host_port.parse().unwrap(),
        host_last: 0,
        container_port: inside.parse().unwrap(),
        protocol,
    }
}

impl Host {
    /// Starts a container with these ports published.
    pub(super) fn start(&self, ports: &[&str]) -> Result<Container, NetworkError> {
        let request = request(&ports.iter().map(|text| port(text)).collect::<Vec<_>>());
        let namespace = new_namespace();
        let attached = attach(plan(&request, &self.paths)?, Some(namespace.as_fd()), &self.paths)?;
        Ok(Container { id: request.id, namespace, attached })
    }

    /// Plans with patience: a program that another test of this process starts holds a copy of every descriptor between
    /// its fork and its execve, and with it a port that was given back.
    pub(super) fn plan(&self, request: &EndpointRequest) -> Result<EndpointPlan, NetworkError> {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
        loop {
            match plan(request, &self.paths) {
                Err(NetworkError::PortInUse { .. }) if std::time::Instant::now() < deadline => {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                result => return result,
            }
        }
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let mut connection = netlink::Connection::open(crate::sys::netlink::Family::Route).unwrap();
        route::links(&mut connection).unwrap()
    }

    /// Waits until no pair of links of ours is left: the kernel removes them after their namespace.
    pub(super) fn wait_for_links_to_go(&self) {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while self.links().iter().any(|link| link.name.starts_with("bv")) {
            assert!(std::time::Instant::now() < deadline, "links left: {:?}", self.links());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Everything `nft` lists, without handles. Protocols are numbers: their names stand in a file that not every machine has.
    #[expect(clippy::disallowed_methods, reason = "the tests look with another eye than our own")]
    pub(super) fn rules(&self) -> String {
        let output =
            std::process::Command::new("nft").args(["--numeric-protocol", "list", "ruleset"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a program in this host's namespace.
    #[expect(clippy::disallowed_methods, reason = "what somebody does behind our back is done with their tools")]
    pub(super) fn run(&self, line: &str) {
        let output = std::process::Command::new("sh").args(["-ec", line]).output().unwrap();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Proves that nothing of ours is left in the namespace or among the files.
    pub(super) fn assert_bare(&self) {
        self.wait_for_links_to_go();
        let names: Vec<String> = self.links().into_iter().map(|link| link.name).collect();
        assert!(names.iter().all(|name| !name.starts_with("bh-") && !name.starts_with("bv")), "{names:?}");
        assert_eq!(self.rules(), "");
        assert_eq!(ipam::reservations(&self.paths).unwrap(), []);
        assert_eq!(journal::owners(&self.paths).unwrap(), []);
    }
}
