//! Has the linker put the functions that a run of a container passes through side by side: `hot.ld` lists them, written by
//! `benches/order.sh`. Spread over the whole program they cost a page fault for nearly each piece of 64 KiB, in each process.
#![allow(clippy::print_stdout, reason = "this is how a build script speaks")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=hot.ld");
    // Only what is shipped is worth it; names that are not there any more are passed over.
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-T");
        println!("cargo::rustc-link-arg-bins={}/hot.ld", env!("CARGO_MANIFEST_DIR"));
    }
}
