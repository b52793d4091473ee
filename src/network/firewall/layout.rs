//! What our tables consist of: chains, rules and sets. Rules never change; networks, endpoints and published ports are
//! elements of sets and maps, so that a start is one small transaction and a thousand networks cost a packet no more
//! than one.
//!
//! ```text
//! table inet bulkhead
//!   prerouting (dstnat)   from our bridges to 127/8: drop; destination found in @publish-on or @publish: dnat
//!   output (dstnat)       the same for the host's own connections, except to 127/8
//!   postrouting (srcnat)  from our networks: masquerade outwards, and when a published port leads back in
//!   forward (filter)      into our bridges: established, translated or same bridge, else drop
//! table bridge bulkhead
//!   prerouting            from our ports: only the endpoint's own addresses, no router advertisements
//! ```

use super::expression::{Base, Expressions, Meta, R0, Track, Verdict};

/// A table's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// IPv4 and IPv6.
    Inet = 1,
    /// Frames on bridges.
    Bridge = 7,
}

/// A chain and where it hangs; without hook it is jumped to.
pub(super) struct Chain {
    pub name: &'static str,
    pub hook: Option<Hook>,
}

/// Type, hook number and priority of a base chain.
pub(super) struct Hook {
    pub kind: &'static str,
    pub number: u32,
    pub priority: i32,
}

/// A rule: its chain, its name (kept in the kernel as the rule's comment, by which we know it again), its contents.
pub(super) struct Rule {
    pub chain: &'static str,
    pub name: &'static str,
    pub write: fn(&mut Expressions<'_>),
}

/// A set or map.
pub(super) struct SetLayout {
    pub name: &'static str,
    /// Type of the key for listings: six bits for each part.
    pub key_type: u32,
    pub key_length: u32,
    pub interval: bool,
    /// Type and length of the values of a map.
    pub value: Option<(u32, u32)>,
}

/// A whole table.
pub(super) struct Table {
    pub family: Family,
    pub chains: &'static [Chain],
    pub sets: &'static [SetLayout],
    pub rules: &'static [Rule],
}

// Types as `nft` names them in listings.
const IPV4: u32 = 7;
const ETHER: u32 = 9;
const PROTOCOL: u32 = 12;
const PORT: u32 = 13;
const NAME: u32 = 41;

const fn base(kind: &'static str, number: u32, priority: i32) -> Option<Hook> {
    Some(Hook { kind, number, priority })
}

/// Translation, masquerading and isolation.
pub(super) static INET: Table = Table {
    family: Family::Inet,
    chains: &[
        Chain { name: "to-container", hook: None },
        Chain { name: "prerouting", hook: base("nat", 0, -100) },
        Chain { name: "output", hook: base("nat", 3, -100) },
        Chain { name: "postrouting", hook: base("nat", 4, 100) },
        Chain { name: "forward", hook: base("filter", 2, 0) },
    ],
    sets: &[
        SetLayout { name: "bridges", key_type: NAME, key_length: 16, interval: false, value: None },
        SetLayout { name: "same", key_type: NAME << 6 | NAME, key_length: 32, interval: false, value: None },
        SetLayout { name: "subnets", key_type: IPV4, key_length: 4, interval: true, value: None },
        SetLayout {
            name: "publish",
            key_type: PROTOCOL << 6 | PORT,
            key_length: 8,
            interval: false,
            value: Some((IPV4 << 6 | PORT, 8)),
        },
        SetLayout {
            name: "publish-on",
            key_type: (IPV4 << 6 | PROTOCOL) << 6 | PORT,
            key_length: 12,
            interval: false,
            value: Some((IPV4 << 6 | PORT, 8)),
        },
    ],
    rules: &[
        Rule { chain: "prerouting", name: "loopback", write: loopback },
        Rule { chain: "prerouting", name: "publish-on", write: publish_on },
        Rule { chain: "prerouting", name: "publish", write: publish },
        Rule { chain: "output", name: "publish-on", write: output_publish_on },
        Rule { chain: "output", name: "publish", write: output_publish },
        Rule { chain: "postrouting", name: "hairpin", write: hairpin },
        Rule { chain: "postrouting", name: "masquerade", write: masquerade },
        Rule { chain: "forward", name: "inwards", write: inwards },
        Rule { chain: "to-container", name: "established", write: established },
        Rule { chain: "to-container", name: "translated", write: translated },
        Rule { chain: "to-container", name: "same", write: same_bridge },
        Rule { chain: "to-container", name: "isolate", write: |e| e.verdict(Verdict::Drop) },
    ],
};

/// The guard against endpoints that speak with addresses they were not given.
pub(super) static GUARD: Table = Table {
    family: Family::Bridge,
    chains: &[Chain { name: "prerouting", hook: base("filter", 0, -300) }],
    sets: &[
        SetLayout { name: "ports", key_type: NAME, key_length: 16, interval: false, value: None },
        SetLayout {
            name: "allowed",
            key_type: (NAME << 6 | ETHER) << 6 | IPV4,
            key_length: 28,
            interval: false,
            value: None,
        },
    ],
    rules: &[
        Rule { chain: "prerouting", name: "others", write: other_ports },
        Rule { chain: "prerouting", name: "spoofed-ip", write: spoofed_ip },
        Rule { chain: "prerouting", name: "spoofed-arp", write: spoofed_arp },
        Rule { chain: "prerouting", name: "router-advertisement", write: router_advertisement },
    ],
};

/// CVE-2020-8558: were `route_localnet` switched on by somebody, the host's loopback services still stay closed.
fn loopback(e: &mut Expressions<'_>) {
    e.meta(Meta::InName, R0).in_set("bridges", R0).ipv4();
    e.payload(Base::Network, 16, 4, R0).mask(R0, [255, 0, 0, 0]).equals(R0, &[127, 0, 0, 0]).verdict(Verdict::Drop);
}

fn publish_on(e: &mut Expressions<'_>) {
    e.ipv4().payload(Base::Network, 16, 4, R0);
    e.meta(Meta::Transport, R0 + 1).payload(Base::Transport, 2, 2, R0 + 2);
    e.map("publish-on", R0, R0).destination(R0, R0 + 1);
}

fn publish(e: &mut Expressions<'_>) {
    e.ipv4().for_this_host();
    e.meta(Meta::Transport, R0).payload(Base::Transport, 2, 2, R0 + 1);
    e.map("publish", R0, R0).destination(R0, R0 + 1);
}

/// The host's connections to its own loopback go to the shim's listener: translating them would need `route_localnet`.
fn not_loopback(e: &mut Expressions<'_>) {
    e.ipv4().payload(Base::Network, 16, 4, R0).mask(R0, [255, 0, 0, 0]).differs(R0, &[127, 0, 0, 0]);
}

fn output_publish_on(e: &mut Expressions<'_>) {
    not_loopback(e);
    publish_on(e);
}

fn output_publish(e: &mut Expressions<'_>) {
    not_loopback(e);
    publish(e);
}

/// Status bit: the destination was translated (`IPS_DST_NAT`).
const TRANSLATED: u32 = 1 << 5;

/// A container that calls a published port and ends at its own bridge: the answer must come back through here.
fn hairpin(e: &mut Expressions<'_>) {
    e.ipv4().payload(Base::Network, 12, 4, R0).in_set("subnets", R0);
    e.meta(Meta::OutName, R0).in_set("bridges", R0).any_bit(Track::Status, TRANSLATED).masquerade();
}

fn masquerade(e: &mut Expressions<'_>) {
    let mut lo = [0; 16];
    lo[..2].copy_from_slice(b"lo");
    e.ipv4().payload(Base::Network, 12, 4, R0).in_set("subnets", R0);
    e.meta(Meta::OutName, R0).not_in_set("bridges", R0).differs(R0, &lo).masquerade();
}

fn inwards(e: &mut Expressions<'_>) {
    e.meta(Meta::OutName, R0).in_set("bridges", R0).verdict(Verdict::Jump("to-container"));
}

fn established(e: &mut Expressions<'_>) {
    e.any_bit(Track::State, 2 | 4).verdict(Verdict::Accept);
}

fn translated(e: &mut Expressions<'_>) {
    e.any_bit(Track::Status, TRANSLATED).verdict(Verdict::Accept);
}

/// Neighbours on one bridge come this way only where the host has `bridge-nf-call-iptables` on.
fn same_bridge(e: &mut Expressions<'_>) {
    e.meta(Meta::InName, R0).meta(Meta::OutName, R0 + 4).in_set("same", R0).verdict(Verdict::Accept);
}

fn other_ports(e: &mut Expressions<'_>) {
    e.meta(Meta::InName, R0).not_in_set("ports", R0).verdict(Verdict::Accept);
}

fn ether_type(e: &mut Expressions<'_>, kind: u16) {
    e.payload(Base::Link, 12, 2, R0).equals(R0, &kind.to_be_bytes());
}

fn spoofed_ip(e: &mut Expressions<'_>) {
    ether_type(e, 0x0800);
    e.meta(Meta::InName, R0).payload(Base::Link, 6, 6, R0 + 4).payload(Base::Network, 12, 4, R0 + 6);
    e.not_in_set("allowed", R0).verdict(Verdict::Drop);
}

fn spoofed_arp(e: &mut Expressions<'_>) {
    ether_type(e, 0x0806);
    e.meta(Meta::InName, R0).payload(Base::Network, 8, 6, R0 + 4).payload(Base::Network, 14, 4, R0 + 6);
    e.not_in_set("allowed", R0).verdict(Verdict::Drop);
}

/// CVE-2020-13401: no endpoint makes itself a router (ICMPv6 type 134).
fn router_advertisement(e: &mut Expressions<'_>) {
    ether_type(e, 0x86dd);
    e.payload(Base::Network, 6, 1, R0).equals(R0, &[58]);
    e.payload(Base::Network, 40, 1, R0).equals(R0, &[134]).verdict(Verdict::Drop);
}
