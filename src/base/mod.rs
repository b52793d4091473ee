//! Ground floor: identifiers, digests, sizes, durations and times.
//!
//! Owns the small value types that every floor shares. Knows no noun of ours (no container, no image) and makes no
//! system call apart from reading the clock and the kernel's random bytes.

mod causes;
mod digest;
mod duration;
mod id;
mod signal;
mod size;
mod time;

pub use causes::with_causes;
pub use digest::{Digest, DigestError, Sha256};
pub use duration::{DurationError, format_go_duration, human_duration, parse_go_duration};
pub use id::{ContainerId, IdError};
pub(crate) use id::{hex, unique_name};
pub use signal::{parse_signal, signal_name};
pub use size::{Bytes, SizeError, human_size};
pub use time::Timestamp;
