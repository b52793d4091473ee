//! Our own nftables tables: never anybody else's, never through another program.

mod expression;
mod foreign;
mod layout;
mod names;

pub(super) use foreign::foreign_drops;
pub(super) use names::redirect_names;

use super::address::{Mac, Subnet};
use super::endpoint::Protocol;
use super::netlink::message::{APPEND, CREATE, Message, REQUEST};
use super::netlink::parse::{Attributes, text};
use super::netlink::{Connection, DUMP_REQUEST, NetlinkError};
use expression::Expressions;
use layout::{Family, GUARD, INET, SetLayout, Table};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

const SUBSYSTEM: u16 = 10 << 8;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;
const GETRULE: u16 = SUBSYSTEM | 7;
const NEWSET: u16 = SUBSYSTEM | 9;
const NEWSETELEM: u16 = SUBSYSTEM | 12;
const DELSETELEM: u16 = SUBSYSTEM | 14;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_DATA_VALUE: u16 = 1;

/// Form of the rules; a table made by another version of us is replaced.
const VERSION: &str = "1";

/// `struct nfgenmsg`.
fn header(family: Family) -> [u8; 4] {
    [family as u8, 0, 0, 0]
}

/// An entry of one of our sets or maps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Element {
    /// A bridge of ours.
    Bridge(String),
    /// A network of ours, translated on its way out.
    Subnet(Subnet),
    /// A published port.
    Publish {
        /// Address of the host, or all of them.
        address: Option<Ipv4Addr>,
        /// Transport protocol.
        protocol: Protocol,
        /// Port of the host.
        port: u16,
        /// Address of the endpoint.
        target: Ipv4Addr,
        /// Port of the endpoint.
        target_port: u16,
    },
    /// A bridge port with the only addresses it may speak with.
    Guard {
        /// The host's end of the pair of links.
        link: String,
        /// Link-layer address of the endpoint.
        mac: Mac,
        /// Address of the endpoint.
        address: Ipv4Addr,
    },
}

/// Key, value, and whether it marks the end of an interval.
type Entry = (Vec<u8>, Option<Vec<u8>>, bool);

fn padded(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

impl Element {
    /// Spells the element as entries of sets.
    fn entries(&self) -> Vec<(&'static Table, &'static str, Vec<Entry>)> {
        match self {
            Self::Bridge(name) => vec![
                (&INET, "bridges", vec![(padded(name), None, false)]),
                (&INET, "same", vec![([padded(name), padded(name)].concat(), None, false)]),
            ],
            Self::Subnet(subnet) => {
                let end = Ipv4Addr::from(u32::from(subnet.last()).wrapping_add(1));
                let bounds = vec![(subnet.first().octets().to_vec(), None, false), (end.octets().to_vec(), None, true)];
                vec![(&INET, "subnets", bounds)]
            }
            Self::Publish { address, protocol, port, target, target_port } => {
                let [high, low] = port.to_be_bytes();
                let tail = [protocol.number(), 0, 0, 0, high, low, 0, 0];
                let [to_high, to_low] = target_port.to_be_bytes();
                let value = [&target.octets()[..], &[to_high, to_low, 0, 0]].concat();
                match address {
                    Some(address) => {
                        let key = [&address.octets()[..], &tail].concat();
                        vec![(&INET, "publish-on", vec![(key, Some(value), false)])]
                    }
                    None => vec![(&INET, "publish", vec![(tail.to_vec(), Some(value), false)])],
                }
            }
            Self::Guard { link, mac, address } => {
                let key = [&padded(link)[..], &mac.0, &[0, 0], &address.octets()].concat();
                vec![
                    (&GUARD, "allowed", vec![(key, None, false)]),
                    (&GUARD, "ports", vec![(padded(link), None, false)]),
                ]
            }
        }
    }

    fn messages(&self, table: &str, kind: u16, flags: u16, guarded: bool) -> Vec<Message> {
        let mut messages = Vec::new();
        for (layout, set, entries) in self.entries() {
            if layout.family == Family::Bridge && !guarded {
                continue;
            }
            let mut message = Message::new(kind, REQUEST | flags, &header(layout.family));
            message.text(1, table);
            message.text(2, set);
            message.nested(3, |m| {
                for (key, value, end) in &entries {
                    m.nested(NFTA_LIST_ELEM, |m| {
                        m.nested(1, |m| m.attribute(NFTA_DATA_VALUE, key));
                        if let Some(value) = value {
                            m.nested(2, |m| m.attribute(NFTA_DATA_VALUE, value));
                        }
                        if *end {
                            m.number_be(3, 1); // NFT_SET_ELEM_INTERVAL_END
                        }
                    });
                }
            });
            messages.push(message);
        }
        messages
    }
}

/// Our tables in the thread's network namespace, under this installation's name.
#[derive(Debug)]
pub(super) struct Firewall<'a> {
    connection: Connection,
    name: &'a str,
    /// Whether the kernel filters on bridges (`CONFIG_NF_TABLES_BRIDGE`).
    guards: bool,
    /// Whether something was deleted, which makes closing the connection wait.
    deleted: bool,
}

/// Whether our tables are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Intact {
    /// Translation and isolation.
    pub inet: bool,
    /// The guard against spoofing.
    pub guard: bool,
}

impl<'a> Firewall<'a> {
    /// Opens the firewall of the thread's present network namespace.
    pub(super) fn open(name: &'a str) -> Result<Self, NetlinkError> {
        Ok(Self {
            connection: Connection::open(crate::sys::netlink::Family::Netfilter)?,
            name,
            guards: true,
            deleted: false,
        })
    }

    /// Looks whether all rules are there, in order.
    pub(super) fn inspect(&mut self) -> Result<Intact, NetlinkError> {
        Ok(Intact { inet: self.is_intact(&INET)?, guard: self.is_intact(&GUARD)? })
    }

    fn is_intact(&mut self, table: &Table) -> Result<bool, NetlinkError> {
        let mut message = Message::new(GETRULE, DUMP_REQUEST, &header(table.family));
        message.text(NFTA_RULE_TABLE, self.name);
        let mut found: Vec<(String, Vec<u8>)> = Vec::new();
        let name = self.name;
        let answer = self.connection.query(message, true, |reply| {
            let attributes = Attributes::new(reply.body.get(4..).unwrap_or_default());
            if attributes.find(NFTA_RULE_TABLE).map(text).as_deref() == Some(name) {
                let chain = attributes.find(NFTA_RULE_CHAIN).map(text).unwrap_or_default();
                let comment = attributes.find(NFTA_RULE_USERDATA).unwrap_or_default().to_vec();
                found.push((chain, comment));
            }
        });
        match answer {
            Err(error) if error.is_absent() => return Ok(false),
            other => other?,
        }
        // The kernel lists chain by chain; only the order within a chain matters.
        let same_chain = |chain: &str| {
            let have = found.iter().filter(|(c, _)| c == chain).map(|(_, comment)| comment.as_slice());
            let want = table.rules.iter().filter(|r| r.chain == chain).map(|r| comment(r.name));
            have.eq(want.collect::<Vec<_>>().iter().map(Vec::as_slice))
        };
        Ok(found.len() == table.rules.len() && table.chains.iter().all(|chain| same_chain(chain.name)))
    }

    /// Makes the elements hold, and first the tables that are not intact, all in one transaction. A kernel without
    /// filtering on bridges goes without the guard.
    pub(super) fn add(&mut self, elements: &[Element], intact: Intact) -> Result<(), NetlinkError> {
        match self.try_add(elements, intact) {
            Err(error) if self.guards && (error.is(Errno::AFNOSUPPORT) || error.is(Errno::OPNOTSUPP)) => {
                self.guards = false;
                self.try_add(elements, intact)
            }
            result => result,
        }
    }

    fn try_add(&mut self, elements: &[Element], intact: Intact) -> Result<(), NetlinkError> {
        let mut messages = Vec::new();
        if !intact.inet {
            self.rebuild(&INET, &mut messages);
        }
        if !intact.guard && self.guards {
            self.rebuild(&GUARD, &mut messages);
        }
        for element in elements {
            messages.extend(element.messages(self.name, NEWSETELEM, CREATE, self.guards));
        }
        if messages.is_empty() { Ok(()) } else { self.connection.transaction(messages) }
    }

    /// Takes elements away; those that are gone already are fine.
    pub(super) fn remove(&mut self, elements: &[Element]) -> Result<(), NetlinkError> {
        let messages: Vec<Message> =
            elements.iter().flat_map(|e| e.messages(self.name, DELSETELEM, 0, self.guards)).collect();
        if messages.is_empty() {
            return Ok(());
        }
        self.deleted = true;
        match self.connection.transaction(messages.clone()) {
            Err(error) if error.is_absent() => {}
            result => return result,
        }
        // A transaction is all or nothing: one missing element refuses it, so each goes by itself.
        let mut result = Ok(());
        for message in messages {
            match self.connection.transaction(vec![message]) {
                Err(error) if !error.is_absent() => result = Err(error),
                _ => {}
            }
        }
        result
    }

    /// Closes the connection; what was deleted is gone already, only the kernel's own clean-up is not waited for.
    pub(super) fn close(self) {
        if self.deleted {
            self.connection.close_elsewhere();
        }
    }

    /// Removes our tables; absent ones are fine.
    pub(super) fn destroy(&mut self) -> Result<(), NetlinkError> {
        let mut result = Ok(());
        for family in [Family::Inet, Family::Bridge] {
            let mut message = Message::new(DELTABLE, REQUEST, &header(family));
            message.text(NFTA_TABLE_NAME, self.name);
            match self.connection.transaction(vec![message]) {
                Err(error) if !error.is_absent() && !error.is(Errno::AFNOSUPPORT) => result = Err(error),
                _ => {}
            }
        }
        result
    }

    /// Adds the messages that replace whatever is left of a table by a whole one.
    fn rebuild(&self, table: &Table, messages: &mut Vec<Message>) {
        let named = |kind, flags| {
            let mut message = Message::new(kind, REQUEST | flags, &header(table.family));
            message.text(NFTA_TABLE_NAME, self.name);
            message
        };
        // Made first, so that the removal cannot miss.
        messages.extend([named(NEWTABLE, CREATE), named(DELTABLE, 0), named(NEWTABLE, CREATE)]);
        for (number, set) in (1..).zip(table.sets) {
            messages.push(self.set(table.family, set, number));
        }
        for chain in table.chains {
            let mut message = named(NEWCHAIN, CREATE);
            message.text(3, chain.name);
            if let Some(hook) = &chain.hook {
                message.nested(4, |m| {
                    m.number_be(1, hook.number);
                    m.number_be(2, hook.priority.cast_unsigned());
                });
                message.number_be(5, 1); // accept what no rule names
                message.text(7, hook.kind);
            }
            messages.push(message);
        }
        for rule in table.rules {
            let mut message = named(NEWRULE, CREATE | APPEND);
            message.text(NFTA_RULE_CHAIN, rule.chain);
            message.nested(NFTA_RULE_EXPRESSIONS, |m| (rule.write)(&mut Expressions(m)));
            message.attribute(NFTA_RULE_USERDATA, &comment(rule.name));
            messages.push(message);
        }
    }

    fn set(&self, family: Family, set: &SetLayout, number: u32) -> Message {
        let mut message = Message::new(NEWSET, REQUEST | CREATE, &header(family));
        message.text(1, self.name);
        message.text(2, set.name);
        let flags = if set.interval { 4 } else { 0 } | if set.value.is_some() { 8 } else { 0 };
        message.number_be(3, flags);
        message.number_be(4, set.key_type);
        message.number_be(5, set.key_length);
        if let Some((kind, length)) = set.value {
            message.number_be(6, kind);
            message.number_be(7, length);
        }
        message.number_be(10, number);
        message
    }
}

/// A rule's comment as `nft` lists it: type 0, length, text with NUL.
fn comment(name: &str) -> Vec<u8> {
    let text = format!("{name} {VERSION}\0");
    let mut bytes = vec![0, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
