//! Registries (*OCI distribution-spec 1.1*, *Docker Registry HTTP API V2*): pulling images into the store and pushing them.
//!
//! Decisions (addresses, challenges, retries, ranges, the choice from an index) are pure functions; `http` moves the bytes.
//! Nothing a registry says is believed: lengths are bounded, bytes are hashed as they come, and what they hold is unpacked
//! by the jailed processes of `unpack`. Reads no environment; files only where [`Trust`] says, and when TLS wants them.

mod blob;
mod cached;
mod challenge;
mod client;
mod compress;
mod download;
mod endpoint;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
mod pull;
mod push;
mod retry;
mod tls;
mod token;
mod turn;
mod url;

pub use client::{Client, Notice, Options};
pub use compress::Format;
pub use download::{Download, Progress, Validators, Wanted};
pub use error::RegistryError;
pub use http::{Deadlines, Proxies};
pub use pull::{LayerEvent, Pulled};
pub use push::Pushed;
pub use tls::Trust;
pub use token::{Credential, Credentials};

use super::error::{ImageError, Result};

/// Returns the results of work that was done side by side, in order. What the others were ended for comes before that they
/// were.
fn first_failure<T>(mut done: Vec<(usize, Result<T>)>) -> Result<Vec<T>> {
    done.sort_by_key(|(at, _)| *at);
    let ended = |error: &ImageError| matches!(error, ImageError::Registry(RegistryError::Interrupted));
    let cause = done.iter().position(|(_, result)| result.as_ref().is_err_and(|error| !ended(error)));
    if let Some(at) = cause {
        done.swap(0, at);
    }
    done.into_iter().map(|(_, result)| result).collect()
}
