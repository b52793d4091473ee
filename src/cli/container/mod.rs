//! Verbs about containers.

mod create_flags;
mod mounts;
mod ports;
mod values;

#[cfg(test)]
mod tests;
