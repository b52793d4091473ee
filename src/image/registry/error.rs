//! What can go wrong between here and a registry.

use crate::base::Digest;
use std::io;
use std::time::Duration;

/// A registry could not be asked, or its answer could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The caller wants it to end.
    #[error("interrupted")]
    Interrupted,
    /// A name has no address.
    #[error("find the address of {host}: {reason}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        reason: String,
    },
    /// No connection could be made.
    #[error("connect to {address}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The other side is not who it should be, or does not speak TLS.
    #[error("secure the connection to {host}: {reason}")]
    Tls {
        /// Host and port.
        host: String,
        /// What TLS said.
        reason: String,
    },
    /// The connection broke.
    #[error("{url}: the connection broke")]
    Transfer {
        /// What was asked.
        url: String,
        /// How.
        #[source]
        source: io::Error,
    },
    /// Nothing, or too little, came.
    #[error("{url}: {what} within {} s", after.as_secs_f32())]
    TimedOut {
        /// What was asked.
        url: String,
        /// What did not happen.
        what: &'static str,
        /// How long it was waited for.
        after: Duration,
    },
    /// The answer is no answer.
    #[error("{url}: {what}")]
    Malformed {
        /// What was asked.
        url: String,
        /// What is wrong.
        what: &'static str,
    },
    /// The registry refused, or failed.
    #[error("{url}: {status}{}", if message.is_empty() { String::new() } else { format!(" ({message})") })]
    Status {
        /// What was asked.
        url: String,
        /// Status code.
        status: u16,
        /// What the registry says about it.
        message: String,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
    },
    /// There is no such manifest.
    #[error("there is no image {name} on {registry}")]
    Unknown {
        /// The image.
        name: String,
        /// The registry.
        registry: String,
    },
    /// The registry does not let us.
    #[error("{registry} refuses {}{}", if repository.is_empty() { "the login".to_owned() } else { format!("access to {repository}") }, if message.is_empty() { String::new() } else { format!(": {message}") })]
    Denied {
        /// The registry, as `login` takes it.
        registry: String,
        /// The repository.
        repository: String,
        /// What the registry says about it.
        message: String,
    },
    /// The place that gives out tokens is not one to send credentials to.
    #[error("{registry} asks for a token from {realm:?}: {why}")]
    Realm {
        /// The registry.
        registry: String,
        /// What it named.
        realm: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The answer points where we do not follow.
    #[error("{url} redirects to {to:?}: {why}")]
    Redirect {
        /// What was asked.
        url: String,
        /// Where to.
        to: String,
        /// Why not.
        why: &'static str,
    },
    /// More bytes than there may be.
    #[error("{what} is longer than {most} bytes")]
    TooLong {
        /// What.
        what: String,
        /// Most bytes.
        most: u64,
    },
    /// Another number of bytes than was announced.
    #[error("{what} has {found} bytes instead of {expected}")]
    Length {
        /// What.
        what: String,
        /// Announced bytes.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// Bytes do not have the digest they are named by.
    #[error("{what}: digest is {found}, expected {expected}; the registry or a cache before it serves wrong bytes")]
    Digest {
        /// What.
        what: String,
        /// What they should have.
        expected: Digest,
        /// What they have.
        found: Digest,
    },
    /// A file that was fetched is another than the caller expects.
    #[error("{what}: its digest is {found} instead of {expected}")]
    Checksum {
        /// What.
        what: String,
        /// What it should have.
        expected: Digest,
        /// What it has.
        found: Digest,
    },
    /// It is no address of a file.
    #[error(
        "{address:?} is not an address that is fetched from: http://HOST/PATH or https://HOST/PATH, without a name and password"
    )]
    Address {
        /// As it was given.
        address: String,
    },
    /// A name or a redirect leads to this machine.
    #[error("{host} leads to this machine or to its own link, which is not followed")]
    Own {
        /// The host.
        host: String,
    },
    /// There is no image for the machine.
    #[error("image {name} is not there for {wanted}{}", if has.is_empty() { String::new() } else { format!("; it is for {}", has.join(", ")) })]
    Platform {
        /// The image.
        name: String,
        /// The platform.
        wanted: String,
        /// The platforms there are.
        has: Vec<String>,
    },
    /// The document is of a kind we do not know.
    #[error("image {name}: {what}")]
    Unsupported {
        /// The image.
        name: String,
        /// What it is.
        what: String,
    },
    /// A document of the registry makes no sense.
    #[error("read {what}")]
    Document {
        /// Which.
        what: String,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The credentials could not be had.
    #[error("find the credentials of {registry}: {reason}")]
    Credentials {
        /// Whose.
        registry: String,
        /// Why not.
        reason: String,
    },
    /// A variable that should name a proxy does not.
    #[error("{0}")]
    Proxy(String),
    /// A file that TLS needs cannot be used.
    #[error("read {path}: {reason}")]
    Certificates {
        /// Which.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The system refused.
    #[error("{action}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl RegistryError {
    /// Tells whether asking once more may help.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Transfer { .. } | Self::TimedOut { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Returns how long the registry wants to be left alone.
    pub(super) fn wait(&self) -> Option<Duration> {
        match self {
            Self::Status { wait, .. } => *wait,
            _ => None,
        }
    }
}

/// The outcome of asking a registry.
pub(super) type Result<T, E = RegistryError> = std::result::Result<T, E>;
