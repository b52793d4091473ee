//! The redirect of names: port 53 of 127.0.0.11 inside a container leads to the sockets the shim holds.
//!
//! Two bytes of each packet are rewritten on their way out and back, without connection tracking: a workload may
//! itself serve port 53 on all addresses (`facts: Port 53`), and its connections cost no more than before.

use super::expression::{Base, Expressions, Meta, R0};
use super::{
    CREATE, Connection, Message, NEWCHAIN, NEWRULE, NEWTABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS, NFTA_TABLE_NAME,
    NetlinkError, REQUEST,
};
use crate::network::endpoint::Protocol;
use crate::network::names::NAME_SERVER;
use crate::network::netlink::message::APPEND;

/// `NFPROTO_IPV4`.
const FAMILY: [u8; 4] = [2, 0, 0, 0];
const TABLE: &str = "bulkhead-names";
const CHAIN: &str = "output";
const DNS: [u8; 2] = 53u16.to_be_bytes();

/// Lays the redirect in the namespace the connection was opened in: questions to port 53 go to `udp` and `tcp`.
pub(in crate::network) fn redirect_names(connection: &mut Connection, udp: u16, tcp: u16) -> Result<(), NetlinkError> {
    let mut table = Message::new(NEWTABLE, REQUEST | CREATE, &FAMILY);
    table.text(NFTA_TABLE_NAME, TABLE);
    let mut chain = Message::new(NEWCHAIN, REQUEST | CREATE, &FAMILY);
    chain.text(1, TABLE);
    chain.text(3, CHAIN);
    chain.nested(4, |m| {
        m.number_be(1, 3); // output
        m.number_be(2, (-150i32).cast_unsigned());
    });
    chain.number_be(5, 1);
    chain.text(7, "filter");
    let mut messages = vec![table, chain];
    for (protocol, port, checksum) in [(Protocol::Udp, udp, 6), (Protocol::Tcp, tcp, 16)] {
        let port = port.to_be_bytes();
        // Address and port fields: destination of the question (16, 2), source of the answer (12, 0).
        messages.push(rule(protocol, checksum, (16, 2), DNS, port));
        messages.push(rule(protocol, checksum, (12, 0), port, DNS));
    }
    connection.transaction(messages)
}

fn rule(protocol: Protocol, checksum: u32, (address, port): (u32, u32), from: [u8; 2], to: [u8; 2]) -> Message {
    let mut message = Message::new(NEWRULE, REQUEST | CREATE | APPEND, &FAMILY);
    message.text(1, TABLE);
    message.text(NFTA_RULE_CHAIN, CHAIN);
    message.nested(NFTA_RULE_EXPRESSIONS, |m| {
        let mut e = Expressions(m);
        e.payload(Base::Network, address, 4, R0).equals(R0, &NAME_SERVER.octets());
        e.meta(Meta::Transport, R0).equals(R0, &[protocol.number()]);
        e.payload(Base::Transport, port, 2, R0).equals(R0, &from);
        e.constant(R0, &to).set_transport(port, R0, checksum);
    });
    message
}
