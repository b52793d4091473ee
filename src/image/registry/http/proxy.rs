//! Proxies, as the variables `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` name them (*curl(1)*, "PROXY PROTOCOL PREFIXES"; *RFC 9110
//! "CONNECT"*). Given text, reads no environment.

use crate::image::registry::url::{Origin, is_loopback, origin};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Which connections go through which proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    secure: Option<Proxy>,
    plain: Option<Proxy>,
    /// Hosts, domains and networks that are reached without one.
    exceptions: Vec<String>,
}

/// A proxy that is spoken to without TLS.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) origin: Origin,
    /// Value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.origin)
    }
}

impl Proxies {
    /// Reads what the three variables say; `Err` names the one that cannot be used.
    ///
    /// # Errors
    /// The name of the variable and what is wrong with it.
    pub fn read(https: Option<&str>, http: Option<&str>, none: Option<&str>) -> Result<Self, String> {
        let one = |name: &str, text: Option<&str>| match text.map(str::trim).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => proxy(text).map(Some).ok_or_else(|| {
                format!("{name} names no proxy we can use: it is written http://[user:password@]host[:port]")
            }),
        };
        let exceptions = none.unwrap_or_default().split(',').map(|text| text.trim().to_ascii_lowercase());
        Ok(Self {
            secure: one("HTTPS_PROXY", https)?,
            plain: one("HTTP_PROXY", http)?,
            exceptions: exceptions.filter(|text| !text.is_empty()).collect(),
        })
    }

    /// Returns the proxy on the way to a host; this machine itself is reached without one.
    pub(super) fn to(&self, to: &Origin) -> Option<&Proxy> {
        let proxy = if to.secure { &self.secure } else { &self.plain };
        let excepted = |exception: &String| {
            let (name, port) = match exception.rsplit_once(':') {
                Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.contains(':') => {
                    (name, Some(port))
                }
                _ => (exception.as_str(), None),
            };
            let domain = name.trim_start_matches("*.").trim_start_matches('.');
            let below = to.host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
            let port_fits = port.is_none_or(|port| port.parse() == Ok(to.port));
            let in_network = crate::image::registry::endpoint::in_network(&to.host, exception);
            exception == "*" || (!domain.is_empty() && below && port_fits) || in_network
        };
        proxy.as_ref().filter(|_| !is_loopback(&to.host) && !self.exceptions.iter().any(excepted))
    }
}

fn proxy(text: &str) -> Option<Proxy> {
    let rest = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        Some(_) => return None,
        None => text,
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let authorization = match user {
        Some(user) => Some(format!("Basic {}", STANDARD.encode(decode(user)?))),
        None => None,
    };
    Some(Proxy { origin: origin(false, host)?, authorization })
}

/// Reads `%XX`; `None` when it is malformed.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(proxies: &Proxies, secure: bool, host: &str) -> Option<String> {
        proxies.to(&origin(secure, host).unwrap()).map(|proxy| proxy.origin.to_string())
    }

    #[test]
    fn connections_go_through_the_proxy_of_their_kind() {
        let none = "internal, .corp.example,10.0.0.0/8,one.example:5000,*.wild.example";
        let proxies = Proxies::read(Some("http://p:3128/"), Some("q"), Some(none)).unwrap();
        assert_eq!(way(&proxies, true, "registry.example").as_deref(), Some("http://p:3128"));
        assert_eq!(way(&proxies, false, "registry.example").as_deref(), Some("http://q"));
        for without in [
            "localhost:5000",
            "127.0.0.2",
            "internal",
            "a.internal:99",
            "corp.example",
            "a.corp.example",
            "10.1.2.3:5000",
            "one.example:5000",
            "b.wild.example",
        ] {
            assert_eq!(way(&proxies, true, without), None, "{without}");
        }
        for with in ["notinternal", "xcorp.example", "11.1.2.3", "one.example:5001", "internal.example"] {
            assert!(way(&proxies, true, with).is_some(), "{with}");
        }
        let all = Proxies::read(Some("p"), None, Some("*")).unwrap();
        assert_eq!((way(&all, true, "a.b"), way(&all, false, "a.b")), (None, None));
    }

    #[test]
    fn names_and_passwords_are_read_and_not_shown() {
        let proxies = Proxies::read(Some("http://me:p%40ss@p:1"), None, None).unwrap();
        let proxy = proxies.to(&origin(true, "a.b").unwrap()).unwrap();
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(format!("{proxy:?}"), "http://p:1");
        for bad in ["https://p", "socks5://p", "http://", "http://u%4@p", "p:x"] {
            assert!(Proxies::read(Some(bad), None, None).unwrap_err().starts_with("HTTPS_PROXY"), "{bad}");
        }
        assert_eq!(Proxies::read(Some(""), None, None).unwrap(), Proxies::default());
    }
}
