//! bulkhead runs Dockerfile and Compose workloads in sandboxes, without a daemon.
//!
//! The floors and their rules are described in `ARCHITECTURE.md`; imports go down only, which `tests/it/tidy.rs` checks.

pub mod base;
pub mod build;
pub mod cli;
pub mod config;
pub mod engine;
#[cfg(test)]
mod fuzz_tests;
pub mod health;
pub mod image;
pub mod network;
pub mod oci;
pub mod sandbox;
pub mod security;
pub mod shim;
pub mod step;
pub mod store;
pub mod sys;
#[cfg(test)]
mod tests;
pub mod volume;
