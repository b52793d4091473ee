//! A second reading of profiles, to compare the compiler with; see `crate::security::fuzz` and `tests`.

use super::profile::{Entry, OperatorName, Precedence, Profile};
use super::*;
use crate::security::Capability;

/// A seccomp profile, compiled or refused: the program is one the kernel takes, and says what the text says, for every
/// call that the text names, with arguments around the values it compares with.
pub fn seccomp(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for (capabilities, i386) in [(CapabilitySet(0), false), (CapabilitySet(u64::MAX), true)] {
        let options = ProfileOptions { capabilities, kernel: (6, 1), i386 };
        let Ok(filter) = load_profile(ProfileSource::File { name: "fuzz", text }, &options) else { continue };
        assert!(filter.instructions.len() <= MAX_INSTRUCTIONS && interpret::is_well_formed(&filter.instructions));
        let profile = Profile::parse("fuzz", text).expect("it was compiled");
        let calls = || profile.entries().iter().flat_map(|entry| entry.names()).take(12);
        let values: Vec<u64> = profile
            .entries()
            .iter()
            .flat_map(|entry| entry.arguments())
            .flat_map(|condition| [condition.value, condition.value_two])
            .take(8)
            .flat_map(|value| [value, value.wrapping_sub(1), value.wrapping_add(1), value ^ 1 << 32])
            .chain([0, u64::MAX])
            .collect();
        type Table<'a> = (&'a [(&'a str, u16)], fn(u32, [u64; 6]) -> Call);
        let tables: [Table<'_>; 2] = [(&syscalls::X86_64, Call::x86_64), (&syscalls::I386, Call::i386)];
        for (table, call) in &tables[..1 + usize::from(i386)] {
            for number in calls().filter_map(|name| syscalls::number(table, name)).chain([0, 1, 59, 500]) {
                for (at, value) in values.iter().enumerate() {
                    let other = values[(at * 7 + 3) % values.len()];
                    let arguments = [*value, other, *value, other, *value, other];
                    let verdict = run(&filter.instructions, &call(number, arguments)).expect("it ends");
                    let expected = reference(&profile, &options, table, number, &arguments);
                    assert_eq!(verdict.0, expected, "{number} {arguments:x?}");
                }
            }
        }
    }
}

/// Says what a profile says about a call, by reading it from top to bottom; an independent second opinion.
pub(super) fn reference(
    profile: &Profile,
    options: &ProfileOptions,
    table: &[(&str, u16)],
    number: u32,
    arguments: &[u64; 6],
) -> u32 {
    let default = profile.default_verdict().expect("the profile was compiled");
    let Some((name, _)) = table.iter().find(|(_, known)| u32::from(*known) == number) else {
        let denies = matches!(default & 0xffff_0000, ERRNO | KILL_PROCESS | KILL_THREAD);
        return if denies { ERRNO | 38 } else { default };
    };
    let has = |name: &str| Capability::parse(name).is_ok_and(|capability| options.capabilities.contains(capability));
    let entries: Vec<&Entry> = profile
        .entries()
        .iter()
        .filter(|entry| {
            entry.applies(has, options.kernel).expect("the profile was compiled")
                && entry.names().any(|listed| listed == *name)
        })
        .collect();
    let first = profile.precedence == Precedence::First;
    if !first {
        let bare = |entry: &&&Entry| {
            entry.arguments().is_empty() && entry.verdict().expect("the profile was compiled") != default
        };
        if let Some(entry) = entries.iter().find(bare) {
            return entry.verdict().expect("the profile was compiled");
        }
    }
    for entry in entries {
        let verdict = entry.verdict().expect("the profile was compiled");
        // What says the same as the default is no entry, whatever its conditions are.
        if !first && verdict == default {
            continue;
        }
        let conditions = entry.arguments();
        let holds: Vec<bool> = conditions
            .iter()
            .map(|condition| {
                let argument = arguments[condition.index as usize];
                match condition.op {
                    OperatorName::Equal => argument == condition.value,
                    OperatorName::NotEqual => argument != condition.value,
                    OperatorName::Less => argument < condition.value,
                    OperatorName::LessEqual => argument <= condition.value,
                    OperatorName::Greater => argument > condition.value,
                    OperatorName::GreaterEqual => argument >= condition.value,
                    OperatorName::MaskedEqual => argument & condition.value == condition.value_two,
                }
            })
            .collect();
        let twice = (0..6).any(|index| conditions.iter().filter(|condition| condition.index == index).count() > 1);
        let matches = if twice && !first { holds.contains(&true) } else { !holds.contains(&false) };
        if matches {
            return verdict;
        }
    }
    default
}
