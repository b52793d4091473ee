//! Addresses of registries (*RFC 3986*, the part of it that HTTP needs).

use std::fmt;
use std::net::IpAddr;

/// Longest address, in bytes.
const MAX_URL: usize = 8192;

/// An `http` or `https` address without user information.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Url {
    /// Where the connection goes.
    pub(super) origin: Origin,
    /// Path and query, beginning with `/`.
    pub(super) target: String,
}

/// Scheme, host and port: what credentials are bound to (*RFC 6454 "Origin"*).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Origin {
    /// Whether it is reached through TLS.
    pub(super) secure: bool,
    /// Name or address, lower-case, without brackets.
    pub(super) host: String,
    /// Port.
    pub(super) port: u16,
}

impl Origin {
    /// Returns host and port as a `Host` header has them: without the scheme's own port.
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == port_of(self.secure) { host } else { format!("{host}:{}", self.port) }
    }

    /// Returns the address of a target below it.
    pub(super) fn url(&self, target: impl Into<String>) -> Url {
        Url { origin: self.clone(), target: target.into() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority())
    }
}

impl fmt::Display for Url {
    /// Prints it without its query, which may carry a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{}{path}", self.origin)
    }
}

impl Url {
    /// Reads a complete address; `None` when it is none, is neither `http` nor `https`, or has user information.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        Some(Self { origin: origin(secure, authority)?, target: target_of(target)? })
    }

    /// Resolves what a `Location` header says against this address (*RFC 3986 "Relative Resolution"*, without dot segments).
    pub(super) fn join(&self, location: &str) -> Option<Self> {
        if location.contains("://") && !location.starts_with(['/', '?', '.']) {
            return Self::parse(location);
        }
        if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", if self.origin.secure { "https" } else { "http" }));
        }
        let path = self.target.split('?').next().unwrap_or("/");
        let target = match location.chars().next()? {
            '/' => target_of(location)?,
            '?' => target_of(&format!("{path}{location}"))?,
            _ => {
                let directory = path.rfind('/').map_or("/", |slash| &path[..=slash]);
                target_of(&format!("{directory}{location}"))?
            }
        };
        Some(Self { origin: self.origin.clone(), target })
    }

    /// Returns this address with further parameters in its query.
    pub(super) fn with_query(&self, parameters: &[(&str, &str)]) -> Self {
        let mut target = self.target.clone();
        for (name, value) in parameters {
            target.push(if target.contains('?') { '&' } else { '?' });
            target.push_str(&format!("{}={}", encode(name), encode(value)));
        }
        Self { origin: self.origin.clone(), target }
    }
}

/// The port of a scheme.
pub(super) fn port_of(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// Reads `host[:port]`.
pub(super) fn origin(secure: bool, authority: &str) -> Option<Origin> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, rest)
        }
        None => authority.find(':').map_or((authority, ""), |colon| authority.split_at(colon)),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok().filter(|port| *port > 0)?,
        None if port.is_empty() => port_of(secure),
        _ => return None,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':');
    let fine = !host.is_empty() && host.len() <= 253 && host.bytes().all(plain);
    fine.then(|| Origin { secure, host: host.to_ascii_lowercase(), port })
}

/// Tells whether a host is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Tells whether an address is this machine's own or one of its own link, where clouds keep the machine's secrets.
pub(super) fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_own(IpAddr::V4(v4)),
            None => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6 == METADATA,
        },
    }
}

/// Where a cloud answers with the machine's secrets though it is no address of a link.
const METADATA: std::net::Ipv6Addr = std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Tells whether a host says itself that it is this machine.
pub(super) fn names_own(host: &str) -> bool {
    let bare = host.trim_end_matches('.');
    bare == "localhost" || bare.ends_with(".localhost") || host.parse().is_ok_and(is_own)
}

/// Checks path and query; a fragment is cut off, what may not stand in a request line makes it `None`.
fn target_of(text: &str) -> Option<String> {
    let text = text.split('#').next().unwrap_or_default();
    let fine = text.len() <= MAX_URL && text.bytes().all(|b| b.is_ascii_graphic());
    let whole = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    fine.then_some(whole)
}

/// Writes a value of a query: everything but unreserved characters as `%XX`.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        Url::parse(text).map(|url| format!("{}{}", url.origin, url.target))
    }

    #[test]
    fn addresses_are_read() {
        for (text, expected) in [
            ("https://A.b", "https://a.b/"),
            ("http://a:5000/v2/?x=y#z", "http://a:5000/v2/?x=y"),
            ("https://a:443/x", "https://a/x"),
            ("http://[::1]:5000/x", "http://[::1]:5000/x"),
            ("https://a?b", "https://a/?b"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "a",
            "ftp://a",
            "https://",
            "https://u:p@a/",
            "http://a:0/",
            "http://a:x",
            "http://a:+1",
            "http://a/ b",
            "http://[x]/",
        ] {
            assert_eq!(shown(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_of_this_machine_are_known() {
        for own in ["127.0.0.1", "127.9.9.9", "0.0.0.0", "169.254.169.254", "::1", "::", "fe80::1", "::ffff:127.0.0.1"]
        {
            assert!(names_own(own), "{own}");
        }
        for own in ["localhost", "a.localhost", "localhost.", "fd00:ec2::254"] {
            assert!(names_own(own), "{own}");
        }
        for other in ["10.0.0.1", "192.168.1.1", "8.8.8.8", "2001:db8::1", "::ffff:8.8.8.8", "localhost.example"] {
            assert!(!names_own(other), "{other}");
        }
    }

    #[test]
    fn locations_are_resolved() {
        let base = Url::parse("https://a:5000/v2/x/blobs/uploads/?n=1").unwrap();
        for (location, expected) in [
            ("/v2/y", "https://a:5000/v2/y"),
            ("http://b/c", "http://b/c"),
            ("//c/d", "https://c/d"),
            ("z?q", "https://a:5000/v2/x/blobs/uploads/z?q"),
            ("?q=1", "https://a:5000/v2/x/blobs/uploads/?q=1"),
        ] {
            let joined = base.join(location).unwrap();
            assert_eq!(format!("{}{}", joined.origin, joined.target), expected, "{location}");
        }
        assert_eq!(base.join("ftp://x/"), None);
        assert_eq!(base.join(""), None);
        assert_eq!(base.join("https://u:p@x/"), None);
    }

    #[test]
    fn queries_are_written_and_not_shown() {
        let url =
            Url::parse("https://a/token").unwrap().with_query(&[("scope", "repository:a/b:pull,push"), ("q", "ä")]);
        assert_eq!(url.target, "/token?scope=repository%3Aa%2Fb%3Apull%2Cpush&q=%C3%A4");
        assert_eq!(url.to_string(), "https://a/token");
    }
}
