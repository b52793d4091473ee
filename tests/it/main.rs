//! The one integration binary; modules by noun.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests start programs and write files")]

mod add;
mod boot;
mod build;
mod build_attest;
mod build_caches;
mod build_flags;
mod build_git;
mod build_hostile;
mod build_mounts;
mod build_reuse;
mod cache;
mod cuts;
mod cve;
mod cve_images;
mod disk;
mod dockerfiles;
mod exec;
mod faults;
mod hardening;
mod images;
mod joined;
mod kernels;
mod lifecycle;
mod logs;
mod network;
mod oracle;
mod oracle_build;
mod ports;
mod pull;
mod pull_trust;
mod pull_ways;
mod push;
mod races;
mod readme;
mod run;
mod sandbox;
mod scenarios;
mod servers;
mod shim;
#[allow(unused, reason = "the modules that use all of it need root or more of the program")]
mod support;
mod tidy;
mod tree;
mod volumes;
mod walls;
