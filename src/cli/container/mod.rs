//! Verbs about containers.

mod create_flags;
mod mounts;
mod ports;
mod show;
mod values;

#[cfg(test)]
mod show_tests;
#[cfg(test)]
mod tests;

pub(super) use ports::protocol_name;
pub(super) use show::status_word;
pub(super) use values::signal_name;
