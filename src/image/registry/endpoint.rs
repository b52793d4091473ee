//! Where the images of a registry are asked for: the registry itself, its mirrors before it, and how safe the way must be.

use super::url::{Origin, Url, is_loopback, origin};
use crate::config::{Registries, credential_key};
use std::net::IpAddr;

/// The registry of names that name none.
const HUB: &str = "docker.io";
/// The host that serves it.
const HUB_HOST: &str = "registry-1.docker.io";

/// A place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Ways to it, the best first; the next one counts where the one before cannot be gone at all.
    pub(super) origins: Vec<Origin>,
    /// Path before `/v2/`.
    pub(super) prefix: String,
    /// What its credentials are filed under.
    pub(super) key: String,
    /// Its name in messages.
    pub(super) name: String,
}

/// Returns where to pull images of a registry from: its mirrors in order, then the registry. Mirrors that are no addresses
/// are left out.
pub(super) fn for_pull(registry: &str, rules: &Registries) -> Vec<Endpoint> {
    let mirrors = rules.mirrors.get(registry).into_iter().flatten();
    let mirrors = mirrors.filter_map(|address| mirror(address, rules));
    mirrors.chain(for_push(registry, rules)).collect()
}

/// Returns where to push images of a registry to; `None` when its name is no host.
pub(super) fn for_push(registry: &str, rules: &Registries) -> Option<Endpoint> {
    let host = if registry == HUB { HUB_HOST } else { registry };
    let secure = origin(true, host)?;
    let mut origins = vec![secure.clone()];
    if is_insecure(&secure, rules) {
        origins.extend(origin(false, host));
    }
    let key = credential_key(registry).to_owned();
    Some(Endpoint { origins, prefix: String::new(), key, name: registry.to_owned() })
}

/// Reads a mirror: `host[:port]`, or an address; one with `http://` is meant so.
fn mirror(address: &str, rules: &Registries) -> Option<Endpoint> {
    if !address.contains("://") {
        return for_push(address, rules);
    }
    let url = Url::parse(address)?;
    let prefix = url.target.split('?').next().unwrap_or_default().trim_end_matches('/').to_owned();
    let name = url.origin.authority();
    Some(Endpoint { origins: vec![url.origin], prefix, key: name.clone(), name })
}

/// Tells whether the operator does without proof of who a host is: it is this machine, or it is listed, by `host`,
/// `host:port` or a network in CIDR form (*dockerd "insecure-registries"*).
pub(super) fn is_insecure(origin: &Origin, rules: &Registries) -> bool {
    let with_port = format!("{}:{}", origin.host, origin.port);
    is_loopback(&origin.host)
        || rules.insecure.iter().any(|listed| {
            let listed = listed.to_ascii_lowercase();
            listed == origin.host
                || listed == with_port
                || listed == origin.authority()
                || in_network(&origin.host, &listed)
        })
}

/// Tells whether a host is an address of a network in CIDR form.
pub(super) fn in_network(host: &str, network: &str) -> bool {
    let read = || -> Option<bool> {
        let (base, bits) = network.split_once('/')?;
        let bits: u32 = bits.parse().ok()?;
        Some(match (host.parse().ok()?, base.parse().ok()?) {
            (IpAddr::V4(host), IpAddr::V4(base)) if bits <= 32 => {
                let shift = 32 - bits;
                u32::from(host).checked_shr(shift) == u32::from(base).checked_shr(shift)
            }
            (IpAddr::V6(host), IpAddr::V6(base)) if bits <= 128 => {
                let shift = 128 - bits;
                u128::from(host).checked_shr(shift) == u128::from(base).checked_shr(shift)
            }
            _ => false,
        })
    };
    read().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(insecure: &[&str], mirrors: &[(&str, &[&str])]) -> Registries {
        Registries {
            insecure: insecure.iter().map(|text| (*text).to_owned()).collect(),
            mirrors: mirrors
                .iter()
                .map(|(of, list)| ((*of).to_owned(), list.iter().map(|text| (*text).to_owned()).collect()))
                .collect(),
            ..Registries::default()
        }
    }

    fn ways(registry: &str, rules: &Registries) -> Vec<String> {
        let way = |endpoint: Endpoint| {
            let origins: Vec<String> = endpoint.origins.iter().map(Origin::to_string).collect();
            format!("{}{} key {}", origins.join(" or "), endpoint.prefix, endpoint.key)
        };
        for_pull(registry, rules).into_iter().map(way).collect()
    }

    #[test]
    fn registries_are_found() {
        let none = Registries::default();
        assert_eq!(ways("docker.io", &none), ["https://registry-1.docker.io key https://index.docker.io/v1/"]);
        assert_eq!(ways("a.b:5000", &none), ["https://a.b:5000 key a.b:5000"]);
        assert_eq!(
            ways("localhost:5000", &none),
            ["https://localhost:5000 or http://localhost:5000 key localhost:5000"]
        );
        assert_eq!(ways("[::1]", &none), ["https://[::1] or http://[::1] key [::1]"]);
        assert_eq!(ways("a_b/", &none), Vec::<String>::new());
    }

    #[test]
    fn mirrors_come_first_and_keep_credentials_of_their_own() {
        let rules = rules(&["m:1"], &[("docker.io", &["m:1", "http://n/x/", "ftp://bad", "https://u:p@bad"])]);
        let expected = [
            "https://m:1 or http://m:1 key m:1",
            "http://n/x key n",
            "https://registry-1.docker.io key https://index.docker.io/v1/",
        ];
        assert_eq!(ways("docker.io", &rules), expected);
        assert_eq!(ways("other.io", &rules), ["https://other.io key other.io"]);
    }

    #[test]
    fn insecure_hosts_are_those_listed() {
        let rules = rules(&["a", "b:5000", "10.1.0.0/16", "fd00::/8", "0.0.0.0/33", "c/d"], &[]);
        for (host, expected) in [
            ("a", true),
            ("a:99", true),
            ("b:5000", true),
            ("b:5001", false),
            ("10.1.2.3:5000", true),
            ("10.2.2.3", false),
            ("[fd12::1]:5000", true),
            ("[fe80::1]", false),
            ("127.9.9.9", true),
            ("c", false),
        ] {
            assert_eq!(is_insecure(&origin(true, host).unwrap(), &rules), expected, "{host}");
        }
        let all = Registries { insecure: vec!["0.0.0.0/0".to_owned()], ..Registries::default() };
        assert!(is_insecure(&origin(true, "8.8.8.8").unwrap(), &all));
    }
}
