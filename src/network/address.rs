//! Subnets, link-layer addresses, and the choice of a subnet nobody uses.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Returns the address of an endpoint, derived from its IPv4 address as Docker does (`02:42:` and the four bytes),
    /// so that a neighbour table never holds a stale one.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no link-layer address")))?;
        }
        Ok(Self(bytes))
    }
}

/// An IPv4 address with its prefix length: an interface's address, or a network when the host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subnet {
    /// The address.
    pub address: Ipv4Addr,
    /// Length of the network part in bits, 0 to 32.
    pub prefix: u8,
}

impl Subnet {
    /// Makes a subnet; `None` when the prefix is longer than 32 bits.
    pub fn new(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32).then_some(Self { address, prefix })
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// Returns the first address of the network, its own name.
    pub fn first(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & self.mask())
    }

    /// Returns the last address of the network, its broadcast address.
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) | !self.mask())
    }

    /// Returns the `n`th address of the network.
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(u32::from(self.first()).checked_add(n)?);
        self.contains(address).then_some(address)
    }

    /// Tells whether an address lies in the network.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        u32::from(address) & self.mask() == u32::from(self.first())
    }

    /// Tells whether two networks share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.first()) || other.contains(self.first())
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            Self::new(address.parse().ok()?, prefix.parse().ok()?)
        };
        parse().ok_or_else(|| format!("{text:?} is no IPv4 subnet such as 172.30.0.0/16"))
    }
}

impl Serialize for Subnet {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Subnet {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The pools, in the order they are tried: sixteens that Docker (172.17 to 172.28) and Podman (10.88) leave alone, then
/// twenty-fourths of 192.168 and 10.
pub(super) fn pools() -> impl Iterator<Item = Subnet> {
    let sixteens = [30, 29, 31].into_iter().map(|b| Subnet { address: Ipv4Addr::new(172, b, 0, 0), prefix: 16 });
    let homes = (200..=250).map(|c| Subnet { address: Ipv4Addr::new(192, 168, c, 0), prefix: 24 });
    let tens = (200..=250).flat_map(|b| (0..=255).map(move |c| (b, c)));
    sixteens.chain(homes).chain(tens.map(|(b, c)| Subnet { address: Ipv4Addr::new(10, b, c, 0), prefix: 24 }))
}

/// Returns the first pool that overlaps none of the networks in use.
pub(super) fn choose_subnet(used: &[Subnet]) -> Option<Subnet> {
    pools().find(|pool| !used.iter().any(|network| pool.overlaps(*network)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn bounds_of_subnets() {
        for (text, first, last) in [
            ("172.30.5.6/16", "172.30.0.0", "172.30.255.255"),
            ("10.0.0.1/32", "10.0.0.1", "10.0.0.1"),
            ("1.2.3.4/0", "0.0.0.0", "255.255.255.255"),
            ("192.168.1.77/30", "192.168.1.76", "192.168.1.79"),
        ] {
            assert_eq!(subnet(text).first(), first.parse::<Ipv4Addr>().unwrap(), "{text}");
            assert_eq!(subnet(text).last(), last.parse::<Ipv4Addr>().unwrap(), "{text}");
        }
        assert_eq!(subnet("10.0.0.0/30").nth(4), None);
        assert_eq!(subnet("255.255.255.255/32").nth(1), None);
    }

    #[test]
    fn texts_that_are_no_subnet_are_refused() {
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/0", "a/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_choice_avoids_what_the_host_uses() {
        for (used, expected) in [
            (&[][..], "172.30.0.0/16"),
            (&["172.30.7.0/24"], "172.29.0.0/16"),
            (&["172.16.0.0/12"], "192.168.200.0/24"),
            (&["172.16.0.0/12", "192.168.0.0/16", "10.200.0.9/32"], "10.200.1.0/24"),
        ] {
            let used: Vec<Subnet> = used.iter().map(|text| subnet(text)).collect();
            assert_eq!(choose_subnet(&used), Some(subnet(expected)));
        }
        assert_eq!(choose_subnet(&[subnet("0.0.0.0/0")]), None);
    }

    #[test]
    fn link_layer_addresses_survive_json() {
        let mac = Mac::of(Ipv4Addr::new(172, 30, 0, 255));
        assert_eq!(mac.to_string(), "02:42:ac:1e:00:ff");
        let text = serde_json::to_string(&mac).unwrap();
        assert_eq!(serde_json::from_str::<Mac>(&text).unwrap(), mac);
        assert!(serde_json::from_str::<Mac>("\"02:42:ac\"").is_err());
    }
}
