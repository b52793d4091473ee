//! Other people's tables: who drops what we forward. An accept of ours never overrides a drop of theirs
//! (`facts: Forwarding`), so it is said, with the command that lets our networks pass.

use super::{Connection, DUMP_REQUEST, GETRULE, Message, NetlinkError, SUBSYSTEM, padded, text};
use crate::network::netlink::parse::{Attributes, u32_be};
use std::fmt;

const GETCHAIN: u16 = SUBSYSTEM | 4;
const HOOK_FORWARD: u32 = 2;
const POLICY_DROP: u32 = 0;

/// A chain of another table that drops forwarded packets by its policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::network) struct ForeignDrop {
    family: &'static str,
    table: String,
    chain: String,
    bridge: String,
}

impl fmt::Display for ForeignDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, bridge } = self;
        write!(
            f,
            "chain {chain} of table {family} {table} drops forwarded traffic, containers on {bridge} will not get \
             through; to let them pass: nft insert rule {family} {table} {chain} iifname {bridge} accept; \
             nft insert rule {family} {table} {chain} oifname {bridge} accept"
        )
    }
}

fn family_name(number: u8) -> Option<&'static str> {
    match number {
        1 => Some("inet"),
        2 => Some("ip"),
        _ => None,
    }
}

/// Finds the chains outside our table `own` that drop forwarded IPv4 by policy, in tables that never name the bridge.
pub(in crate::network) fn foreign_drops(
    connection: &mut Connection,
    own: &str,
    bridge: &str,
) -> Result<Vec<ForeignDrop>, NetlinkError> {
    let mut found = Vec::new();
    let message = Message::new(GETCHAIN, DUMP_REQUEST, &[0; 4]);
    connection.query(message, true, |reply| {
        let drops = || {
            let family = family_name(*reply.body.first()?)?;
            let attributes = Attributes::new(reply.body.get(4..)?);
            let hook = attributes.find(4).and_then(|h| Attributes::new(h).find(1)).and_then(u32_be)?;
            let policy = attributes.find(5).and_then(u32_be)?;
            let table = attributes.find(1).map(text).filter(|table| table != own)?;
            (hook == HOOK_FORWARD && policy == POLICY_DROP)
                .then(|| (*reply.body.first().unwrap_or(&0), family, table, attributes.find(3).map(text)))
        };
        found.extend(drops());
    })?;
    let mut drops = Vec::new();
    for (number, family, table, chain) in found {
        if !names_bridge(connection, number, &table, bridge)? {
            drops.push(ForeignDrop { family, table, chain: chain.unwrap_or_default(), bridge: bridge.to_owned() });
        }
    }
    Ok(drops)
}

/// Tells whether a rule of a table compares a link's name with our bridge's: somebody has let it pass.
fn names_bridge(connection: &mut Connection, family: u8, table: &str, bridge: &str) -> Result<bool, NetlinkError> {
    let mut message = Message::new(GETRULE, DUMP_REQUEST, &[family, 0, 0, 0]);
    message.text(1, table);
    let wanted = &padded(bridge)[..bridge.len() + 1];
    let mut named = false;
    connection.query(message, true, |reply| {
        let attributes = Attributes::new(reply.body.get(4..).unwrap_or_default());
        let same = attributes.find(1).map(text).as_deref() == Some(table);
        named |= same && reply.body.windows(wanted.len()).any(|window| window == wanted);
    })?;
    Ok(named)
}
