//! Walls besides namespaces: capability sets, the seccomp compiler, Landlock rule sets, what the host kernel offers and
//! what is enforced.
//!
//! Everything here decides and nothing acts on a container: `sandbox` applies what this module plans. Imports no
//! sibling.

pub mod capabilities;
pub mod enforced;
pub mod features;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hardening;
pub mod landlock;
pub mod seccomp;

pub use capabilities::{Capability, CapabilityError};
pub use features::HostFeatures;
pub use hardening::*;
