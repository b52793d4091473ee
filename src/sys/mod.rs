//! System calls: thin safe wrappers over what `nix` and `rustix` lack, and all `unsafe` of the program.
//!
//! Knows no noun of ours. Each file is one family of calls and allows `unsafe_code` for itself.

mod landlock;
pub mod seccomp;

pub use landlock::landlock_abi;
pub mod fork;
pub mod worker;
pub mod netlink;
pub mod netns;
