//! From a profile to a decision per system call number.

use super::profile::{Argument, OperatorName, Precedence, Profile};
use super::syscalls::{self, I386, X86_64};
use super::{ENOSYS, ERRNO, KILL_PROCESS, KILL_THREAD, ProfileOptions, SeccompError};
use crate::security::Capability;

/// First number of the x32 interface, which x86-64 kernels share the entry with.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Most conditional rules of a profile for one interface: names times alternatives, far above what 4096 instructions hold.
const MAX_RULES: usize = 1 << 15;

/// Decisions of one interface (x86-64 or i386).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    /// Index is the number.
    pub(super) decisions: Vec<Decision>,
    /// Verdict for numbers beyond.
    pub(super) unknown: u32,
}

/// What happens to a system call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decision {
    /// Alternatives in order; the first whose conditions all hold gives the verdict.
    pub(super) rules: Vec<(Vec<Condition>, u32)>,
    /// Verdict where none holds.
    pub(super) otherwise: u32,
}

/// A condition on one argument: `(argument & mask) OP value`, unsigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) index: u8,
    /// All ones but for masked equality.
    pub(super) mask: u64,
    pub(super) operator: Operator,
    pub(super) value: u64,
}

/// Comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

impl Condition {
    fn new(argument: &Argument) -> Result<Self, SeccompError> {
        let index = u8::try_from(argument.index).ok().filter(|index| *index < 6);
        let index = index.ok_or(SeccompError::Argument(argument.index))?;
        let (mask, operator, value) = match argument.op {
            // libseccomp's order: the mask comes first, then the value.
            OperatorName::MaskedEqual => (argument.value, Operator::Equal, argument.value_two),
            OperatorName::Equal => (u64::MAX, Operator::Equal, argument.value),
            OperatorName::NotEqual => (u64::MAX, Operator::NotEqual, argument.value),
            OperatorName::Less => (u64::MAX, Operator::Less, argument.value),
            OperatorName::LessEqual => (u64::MAX, Operator::LessEqual, argument.value),
            OperatorName::Greater => (u64::MAX, Operator::Greater, argument.value),
            OperatorName::GreaterEqual => (u64::MAX, Operator::GreaterEqual, argument.value),
        };
        Ok(Self { index, mask, operator, value })
    }
}

/// Decides every number of both interfaces; the second is `None` when i386 is closed.
pub(super) fn decide(
    profile: &Profile,
    options: &ProfileOptions,
) -> Result<(Interface, Option<Interface>), SeccompError> {
    let main = interface(profile, options, &X86_64)?;
    if !options.i386 {
        return Ok((main, None));
    }
    if !profile.lists_i386() {
        return Err(SeccompError::NoI386);
    }
    Ok((main, Some(interface(profile, options, &I386)?)))
}

fn interface(profile: &Profile, options: &ProfileOptions, table: &[(&str, u16)]) -> Result<Interface, SeccompError> {
    let default = profile.default_verdict()?;
    // A call that did not exist when the profile was written is not there: programs then use what they used before.
    let denied = default & 0xffff_0000 == ERRNO || default == KILL_PROCESS || default == KILL_THREAD;
    let unknown = if denied { ERRNO | ENOSYS } else { default };
    let highest = table.iter().map(|(_, number)| usize::from(*number)).max().unwrap_or(0);
    let mut drafts = vec![Draft::Unknown; highest + 1];
    for (_, number) in table {
        drafts[usize::from(*number)] = Draft::Open(Vec::new());
    }
    let has = |name: &str| Capability::parse(name).is_ok_and(|capability| options.capabilities.contains(capability));
    let mut rules = 0;
    for entry in profile.entries() {
        if !entry.applies(has, options.kernel)? {
            continue;
        }
        let verdict = entry.verdict()?;
        if verdict == default && profile.precedence == Precedence::Libseccomp {
            continue;
        }
        let alternatives = alternatives(entry.arguments(), profile.precedence)?;
        // Names that no kernel of this machine has are skipped: profiles list the calls of all machines.
        for number in entry.names().filter_map(|name| syscalls::number(table, name)) {
            rules += drafts[number as usize].add(&alternatives, verdict, profile.precedence);
            if rules > MAX_RULES {
                return Err(SeccompError::TooManyRules(MAX_RULES));
            }
        }
    }
    let decisions = drafts.into_iter().map(|draft| draft.finish(default, unknown)).collect();
    Ok(Interface { decisions, unknown })
}

/// Returns the conjunctions of an entry; empty when it has no condition.
fn alternatives(arguments: &[Argument], precedence: Precedence) -> Result<Vec<Vec<Condition>>, SeccompError> {
    let conditions = arguments.iter().map(Condition::new).collect::<Result<Vec<_>, _>>()?;
    if conditions.is_empty() {
        return Ok(Vec::new());
    }
    let mut seen = 0_u8;
    let repeated = conditions.iter().any(|condition| {
        let bit = 1 << condition.index;
        let before = seen & bit != 0;
        seen |= bit;
        before
    });
    Ok(if repeated && precedence == Precedence::Libseccomp {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    })
}

/// A decision while entries are read.
#[derive(Clone, Debug)]
enum Draft {
    /// The number belongs to no system call.
    Unknown,
    /// Only conditional entries so far.
    Open(Vec<(Vec<Condition>, u32)>),
    /// An entry without conditions came: later ones change nothing.
    Closed(Decision),
}

impl Draft {
    /// Adds an entry; returns how many conditional rules that made.
    fn add(&mut self, alternatives: &[Vec<Condition>], verdict: u32, precedence: Precedence) -> usize {
        let Self::Open(rules) = self else { return 0 };
        if alternatives.is_empty() {
            let rules = match precedence {
                Precedence::Libseccomp => Vec::new(),
                Precedence::First => std::mem::take(rules),
            };
            *self = Self::Closed(Decision { rules, otherwise: verdict });
        } else {
            rules.extend(alternatives.iter().map(|conditions| (conditions.clone(), verdict)));
        }
        alternatives.len()
    }

    fn finish(self, default: u32, unknown: u32) -> Decision {
        let mut decision = match self {
            Self::Unknown => Decision { rules: Vec::new(), otherwise: unknown },
            Self::Open(rules) => Decision { rules, otherwise: default },
            Self::Closed(decision) => decision,
        };
        // Rules at the end that say what follows anyway.
        while decision.rules.last().is_some_and(|(_, verdict)| *verdict == decision.otherwise) {
            decision.rules.pop();
        }
        decision
    }
}
