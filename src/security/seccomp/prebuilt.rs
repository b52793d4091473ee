//! Our own profiles, compiled for the capability sets of their levels: the start path reads no JSON.
//!
//! `programs.rs` is written by a test (`BULKHEAD_BLESS=1 cargo test --lib prebuilt`) and checked by the same test.

use super::{ProfileOptions, ProfileSource};
use crate::security::hardening::CapabilitySet;

#[path = "programs.rs"]
mod programs;

/// The capabilities that entries of our profiles depend on.
pub(super) const RELEVANT: CapabilitySet = CapabilitySet(0xc40eff3204);

/// Returns the compiled program, if a built-in one is what the source and the options ask for.
pub(super) fn find(source: ProfileSource<'_>, options: &ProfileOptions) -> Option<Vec<u64>> {
    let (program, built_for): (&[u64], _) = match source {
        ProfileSource::Default => (&programs::DEFAULT, CapabilitySet::DEFAULT),
        ProfileSource::Strict => (&programs::STRICT, CapabilitySet::STRICT),
        ProfileSource::File { .. } => return None,
    };
    let same = (options.capabilities.0 ^ built_for.0) & RELEVANT.0 == 0;
    (same && !options.i386).then(|| program.to_vec())
}
