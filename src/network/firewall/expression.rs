//! nftables expressions: the small machine a rule is made of (`linux/netfilter/nf_tables.h`).

use crate::network::netlink::message::Message;

/// First four-byte register; the concatenated keys of sets lie in consecutive ones.
pub(super) const R0: u32 = 8;

const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

/// What `meta` loads.
#[derive(Clone, Copy)]
pub(super) enum Meta {
    /// Name of the link a packet came by.
    InName = 6,
    /// Name of the link it leaves by.
    OutName = 7,
    /// 2 = IPv4, 10 = IPv6.
    Family = 15,
    /// 6 = TCP, 17 = UDP.
    Transport = 16,
}

/// Where a piece of a packet is counted from.
#[derive(Clone, Copy)]
pub(super) enum Base {
    Link = 0,
    Network = 1,
    Transport = 2,
}

/// What `ct` loads.
#[derive(Clone, Copy)]
pub(super) enum Track {
    /// Bits: 2 established, 4 related.
    State = 0,
    /// Bits: 32 its destination was translated.
    Status = 2,
}

/// Where a rule sends a packet.
#[derive(Clone, Copy)]
pub(super) enum Verdict {
    Drop,
    Accept,
    Jump(&'static str),
}

/// The expressions of a rule being written.
pub(super) struct Expressions<'a>(pub(super) &'a mut Message);

impl Expressions<'_> {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Message)) {
        self.0.nested(NFTA_LIST_ELEM, |m| {
            m.text(NFTA_EXPR_NAME, name);
            m.nested(NFTA_EXPR_DATA, fill);
        });
    }

    /// Loads a property of the packet.
    pub(super) fn meta(&mut self, key: Meta, register: u32) -> &mut Self {
        self.add("meta", |m| {
            m.number_be(1, register);
            m.number_be(2, key as u32);
        });
        self
    }

    /// Loads bytes of the packet.
    pub(super) fn payload(&mut self, base: Base, offset: u32, length: u32, register: u32) -> &mut Self {
        self.add("payload", |m| {
            m.number_be(1, register);
            m.number_be(2, base as u32);
            m.number_be(3, offset);
            m.number_be(4, length);
        });
        self
    }

    /// Writes two bytes of the transport header from a register and mends the checksum at `checksum`.
    pub(super) fn set_transport(&mut self, offset: u32, register: u32, checksum: u32) -> &mut Self {
        self.add("payload", |m| {
            m.number_be(5, register);
            m.number_be(2, Base::Transport as u32);
            m.number_be(3, offset);
            m.number_be(4, 2);
            m.number_be(6, 1); // NFT_PAYLOAD_CSUM_INET
            m.number_be(7, checksum);
        });
        self
    }

    fn compare(&mut self, register: u32, operation: u32, value: &[u8]) -> &mut Self {
        self.add("cmp", |m| {
            m.number_be(1, register);
            m.number_be(2, operation);
            m.nested(3, |m| m.attribute(NFTA_DATA_VALUE, value));
        });
        self
    }

    /// Goes on only if a register holds this value.
    pub(super) fn equals(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(register, 0, value)
    }

    /// Goes on only if a register does not hold this value.
    pub(super) fn differs(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.compare(register, 1, value)
    }

    /// Keeps the bits of a four-byte register that are set in `mask`.
    pub(super) fn mask(&mut self, register: u32, mask: [u8; 4]) -> &mut Self {
        self.add("bitwise", |m| {
            m.number_be(1, register);
            m.number_be(2, register);
            m.number_be(3, 4);
            m.nested(4, |m| m.attribute(NFTA_DATA_VALUE, &mask));
            m.nested(5, |m| m.attribute(NFTA_DATA_VALUE, &[0; 4]));
        });
        self
    }

    /// Goes on only if the registers hold an element of the set.
    pub(super) fn in_set(&mut self, set: &str, register: u32) -> &mut Self {
        self.add("lookup", |m| {
            m.text(1, set);
            m.number_be(2, register);
        });
        self
    }

    /// Goes on only if the registers hold no element of the set.
    pub(super) fn not_in_set(&mut self, set: &str, register: u32) -> &mut Self {
        self.add("lookup", |m| {
            m.text(1, set);
            m.number_be(2, register);
            m.number_be(5, 1); // NFT_LOOKUP_F_INV
        });
        self
    }

    /// Goes on only if the registers hold a key of the map, and loads its value.
    pub(super) fn map(&mut self, map: &str, register: u32, value: u32) -> &mut Self {
        self.add("lookup", |m| {
            m.text(1, map);
            m.number_be(2, register);
            m.number_be(3, value);
        });
        self
    }

    /// Loads a constant.
    pub(super) fn constant(&mut self, register: u32, value: &[u8]) -> &mut Self {
        self.add("immediate", |m| {
            m.number_be(1, register);
            m.nested(2, |m| m.attribute(NFTA_DATA_VALUE, value));
        });
        self
    }

    /// Loads what connection tracking knows.
    pub(super) fn track(&mut self, key: Track, register: u32) -> &mut Self {
        self.add("ct", |m| {
            m.number_be(1, register);
            m.number_be(2, key as u32);
        });
        self
    }

    /// Goes on only if the destination is an address of this host.
    pub(super) fn for_this_host(&mut self) -> &mut Self {
        self.add("fib", |m| {
            m.number_be(1, R0);
            m.number_be(2, 3); // NFT_FIB_RESULT_ADDRTYPE
            m.number_be(3, 2); // NFTA_FIB_F_DADDR
        });
        self.equals(R0, &2u32.to_ne_bytes()) // RTN_LOCAL
    }

    /// Sends the connection to the IPv4 address and port in these registers.
    pub(super) fn destination(&mut self, address: u32, port: u32) -> &mut Self {
        self.add("nat", |m| {
            m.number_be(1, 1); // NFT_NAT_DNAT
            m.number_be(2, 2); // NFPROTO_IPV4
            m.number_be(3, address);
            m.number_be(5, port);
        });
        self
    }

    /// Gives the connection the address of the link it leaves by.
    pub(super) fn masquerade(&mut self) -> &mut Self {
        self.add("masq", |_| {});
        self
    }

    /// Ends with a verdict.
    pub(super) fn verdict(&mut self, verdict: Verdict) {
        self.add("immediate", |m| {
            m.number_be(1, 0); // NFT_REG_VERDICT
            m.nested(2, |m| {
                m.nested(NFTA_DATA_VERDICT, |m| match verdict {
                    Verdict::Drop => m.number_be(NFTA_VERDICT_CODE, 0),
                    Verdict::Accept => m.number_be(NFTA_VERDICT_CODE, 1),
                    Verdict::Jump(chain) => {
                        m.number_be(NFTA_VERDICT_CODE, (-3i32).cast_unsigned());
                        m.text(NFTA_VERDICT_CHAIN, chain);
                    }
                });
            });
        });
    }

    /// Goes on only for IPv4.
    pub(super) fn ipv4(&mut self) -> &mut Self {
        self.meta(Meta::Family, R0).equals(R0, &[2])
    }

    /// Goes on only if connection tracking's bits and these have one in common.
    pub(super) fn any_bit(&mut self, key: Track, bits: u32) -> &mut Self {
        self.track(key, R0).mask(R0, bits.to_ne_bytes()).differs(R0, &[0; 4])
    }
}
