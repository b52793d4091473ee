//! Networks: the driver trait, drafts and their journal, the builtin drivers, addresses, published ports, names.
//!
//! Drivers decide: they append typed operations to a draft. Only `apply` changes links and firewall, and it writes the
//! journal first; teardown reads the journal and knows no driver. Everything is spoken to the kernel synchronously over
//! netlink; no other program runs.
//!
//! ```text
//! engine: plan ──(address, ports held by sockets)──> attach ──(descriptors)──> shim        detach, gc: by the journal
//! ```
//!
//! The state lies in `$RUN/network/{journal,ipam}` and dies with the boot, as links and rules do; the definition of
//! a network in `$ROOT/networks/<name>.json`. An installation in another `$RUN` has its own bridge and tables.

mod address;
mod apply;
mod draft;
mod driver;
mod endpoint;
mod error;
mod firewall;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod ipam;
mod journal;
mod names;
mod netlink;
mod publish;
mod route;
#[cfg(test)]
mod tests;

pub use address::{Mac, Subnet};
pub use draft::{Draft, Inverse, Operation, Owner};
pub use driver::{Attachment, Bare, Bridge, Endpoint, NetworkDriver, NetworkRecord, NetworkWish};
pub use endpoint::{
    Attached, DEFAULT_NETWORK, EndpointPlan, EndpointRequest, Handles, Mode, PortRequest, Protocol, PublishedPort,
    attach, definition, detach, down, gc, plan, prune,
};
pub use error::{Cause, NetworkError};
pub use names::{HostError, HostLine, NAME_SERVER, Resolver, extra_hosts, hosts_text};
pub use netlink::NetlinkError;

use crate::base::Digest;
use crate::store::Paths;

/// The names an installation has on the host: two with different `$RUN` never meet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Installation {
    /// Name of our nftables tables.
    table: String,
    /// Link of the default network.
    bridge: String,
}

impl Installation {
    fn of(paths: &Paths) -> Self {
        let run = paths.run.as_os_str().as_encoded_bytes();
        if run == b"/run/bulkhead" {
            return Self { table: "bulkhead".to_owned(), bridge: "bulkhead0".to_owned() };
        }
        let digest = Digest::of(run);
        let label = &digest.hex()[..8];
        Self { table: format!("bulkhead-{label}"), bridge: format!("bh-{label}") }
    }
}
