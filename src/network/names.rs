//! The texts of `/etc/resolv.conf` and `/etc/hosts`, and which servers answer: pure functions.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Where a container on a bridge asks for names.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A `resolv.conf` (*resolv.conf(5)*).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Servers in order, port 53.
    pub servers: Vec<SocketAddr>,
    /// Search list; the last `search` or `domain` line counts.
    pub search: Vec<String>,
    /// Options in order.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads the host's `resolv.conf`; lines that make no sense are passed over, as the C library does.
    pub fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.servers.extend(words.next().and_then(server)),
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                Some("options") => resolver.options.extend(words.map(str::to_owned)),
                _ => {}
            }
        }
        resolver
    }

    /// Replaces what the caller asked for (`--dns`, `--dns-search`, `--dns-option`); a search list of `.` is empty.
    #[must_use]
    pub fn overridden(mut self, servers: &[IpAddr], search: &[String], options: &[String]) -> Self {
        if !servers.is_empty() {
            self.servers = servers.iter().map(|address| SocketAddr::new(*address, 53)).collect();
        }
        if !search.is_empty() {
            self.search = search.iter().filter(|name| *name != ".").cloned().collect();
        }
        if !options.is_empty() {
            self.options = options.to_vec();
        }
        self
    }

    /// Returns the text of a container's `resolv.conf`: with its own server on a bridge (the shim asks
    /// [`Resolver::servers`] for it), with these servers where the host's or no network is used.
    pub fn text(&self, on_bridge: bool) -> String {
        let mut text = String::from("# Written by bulkhead for this container.\n");
        if on_bridge {
            let _ = writeln!(text, "nameserver {NAME_SERVER}");
        } else {
            for server in &self.servers {
                let _ = match server {
                    SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                        writeln!(text, "nameserver {}%{}", v6.ip(), v6.scope_id())
                    }
                    other => writeln!(text, "nameserver {}", other.ip()),
                };
            }
        }
        for (word, values) in [("search", &self.search), ("options", &self.options)] {
            let clean: Vec<&str> = values.iter().map(String::as_str).filter(|v| is_word(v)).collect();
            if !clean.is_empty() {
                let _ = writeln!(text, "{word} {}", clean.join(" "));
            }
        }
        text
    }
}

/// Reads a server's address; one with a numbered scope (`fe80::1%2`) is kept.
fn server(text: &str) -> Option<SocketAddr> {
    match text.split_once('%') {
        None => Some(SocketAddr::new(text.parse().ok()?, 53)),
        Some((address, scope)) => {
            let address: Ipv6Addr = address.parse().ok()?;
            Some(SocketAddrV6::new(address, 53, 0, scope.parse().ok()?).into())
        }
    }
}

/// Tells whether a text can stand in one of these files without opening a second line or word.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#' && b != b';')
}

/// One line of a `hosts` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostLine {
    /// The address.
    pub address: IpAddr,
    /// Its names, the canonical one first.
    pub names: Vec<String>,
}

/// An entry of `--add-host` that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum HostError {
    /// The address is none.
    #[error("add host {name}: {address:?} is neither an address nor host-gateway")]
    Address {
        /// The name given.
        name: String,
        /// The address given.
        address: String,
    },
    /// The name would break the file.
    #[error("add host {0:?}: a host name has no spaces or control characters")]
    Name(String),
    /// There is no gateway.
    #[error("add host {0}: this network has no host gateway")]
    NoGateway(String),
}

/// Turns `--add-host` pairs into lines; `host-gateway` stands for the host's address in the network.
///
/// # Errors
/// When an address or name cannot be used.
pub fn extra_hosts(pairs: &[(String, String)], gateway: Option<IpAddr>) -> Result<Vec<HostLine>, HostError> {
    let line = |(name, address): &(String, String)| {
        if !is_word(name) {
            return Err(HostError::Name(name.clone()));
        }
        let address = if address == "host-gateway" {
            gateway.ok_or_else(|| HostError::NoGateway(name.clone()))?
        } else {
            let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
            bare.parse().map_err(|_| HostError::Address { name: name.clone(), address: address.clone() })?
        };
        Ok(HostLine { address, names: vec![name.clone()] })
    };
    pairs.iter().map(line).collect()
}

/// Returns the text of a container's `hosts`: loopback names, then `extra` (`--add-host`, links), then its own names.
pub fn hosts_text(own: Option<IpAddr>, hostname: &str, domainname: &str, extra: &[HostLine]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for line in extra {
        let names: Vec<&str> = line.names.iter().map(String::as_str).filter(|name| is_word(name)).collect();
        let _ = writeln!(text, "{}\t{}", line.address, names.join(" "));
    }
    // Without an address of its own a container is found under its name at loopback.
    let own = own.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    if is_word(hostname) {
        match domainname {
            domain if is_word(domain) => writeln!(text, "{own}\t{hostname}.{domain} {hostname}"),
            _ => writeln!(text, "{own}\t{hostname}"),
        }
        .unwrap_or_default();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "# comment\nnameserver 10.255.255.53 # trailing\nnameserver bad\nnameserver fe80::1%2\n\
                        domain old.example\nsearch a.example b.example\noptions edns0 trust-ad\nsortlist x\n";

    #[test]
    fn the_hosts_resolver_is_read_as_the_c_library_does() {
        let resolver = Resolver::parse(HOST);
        assert_eq!(
            resolver.servers,
            ["10.255.255.53:53".parse().unwrap(), "[fe80::1%2]:53".parse::<SocketAddr>().unwrap()]
        );
        assert_eq!(resolver.search, ["a.example", "b.example"]);
        assert_eq!(resolver.options, ["edns0", "trust-ad"]);
    }

    #[test]
    fn the_text_names_our_server_on_a_bridge_and_the_hosts_elsewhere() {
        let resolver = Resolver::parse(HOST);
        let tail = "search a.example b.example\noptions edns0 trust-ad\n";
        let head = "# Written by bulkhead for this container.\n";
        assert_eq!(resolver.text(true), format!("{head}nameserver 127.0.0.11\n{tail}"));
        assert_eq!(resolver.text(false), format!("{head}nameserver 10.255.255.53\nnameserver fe80::1%2\n{tail}"));
    }

    #[test]
    fn what_the_caller_asks_for_leads() {
        let resolver = Resolver::parse(HOST).overridden(
            &["9.9.9.9".parse().unwrap()],
            &[".".to_owned()],
            &["ndots:1".to_owned(), "evil\nnameserver 6.6.6.6".to_owned()],
        );
        let head = "# Written by bulkhead for this container.\n";
        assert_eq!(resolver.text(false), format!("{head}nameserver 9.9.9.9\noptions ndots:1\n"));
    }

    #[test]
    fn hosts_holds_loopback_extras_and_own_names() {
        let gateway = Some("172.30.0.1".parse().unwrap());
        let pair = |n: &str, a: &str| (n.to_owned(), a.to_owned());
        let extra =
            extra_hosts(&[pair("db", "10.0.0.9"), pair("host", "host-gateway"), pair("v6", "[::5]")], gateway).unwrap();
        let text = hosts_text(Some("172.30.0.2".parse().unwrap()), "web", "example.org", &extra);
        let tail: Vec<&str> = text.lines().skip(6).collect();
        assert_eq!(tail, ["10.0.0.9\tdb", "172.30.0.1\thost", "::5\tv6", "172.30.0.2\tweb.example.org web"]);
        assert!(hosts_text(None, "web", "", &[]).ends_with("127.0.0.1\tweb\n"));
    }

    #[test]
    fn entries_that_would_break_the_file_are_refused() {
        let refuse =
            |name: &str, address: &str| extra_hosts(&[(name.to_owned(), address.to_owned())], None).unwrap_err();
        assert!(matches!(refuse("a", "nowhere"), HostError::Address { .. }));
        assert!(matches!(refuse("a\n6.6.6.6 bank", "1.2.3.4"), HostError::Name(_)));
        assert!(matches!(refuse("a", "host-gateway"), HostError::NoGateway(_)));
    }
}
