//! From decisions to one program: a balanced search over merged ranges of equal decision, conditions as leaves.
//!
//! The kernel runs a program once for every number when it is loaded, to remember the constant verdicts
//! (`seccomp_cache_prepare`), so a search loads ten times faster than a chain; see *seccomp(2)*. Instructions are emitted
//! from the end to the start, because classic BPF jumps forward only: a target is then always known.

use super::interpret::Instruction;
use super::rules::{Condition, Decision, Interface, Operator, X32_BIT};
use super::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, ENOSYS, ERRNO, KILL_PROCESS, MAX_INSTRUCTIONS, SeccompError, code};
use std::collections::HashMap;

/// Byte offset of the number in `struct seccomp_data`.
const NUMBER: u32 = 0;
/// Byte offset of the architecture.
const ARCHITECTURE: u32 = 4;

/// Lays out the program.
pub(super) fn compile(main: &Interface, i386: Option<&Interface>) -> Result<Vec<u64>, SeccompError> {
    let mut assembler = Assembler::default();
    let second = i386.map(|interface| assembler.search(interface, false));
    let first = assembler.search(main, true);
    // A foreign entry is told apart before the number is read, because its numbers mean something else.
    let mut foreign = assembler.verdict(KILL_PROCESS);
    if let Some(second) = second {
        foreign = assembler.jump_if(code::JUMP_EQUAL, AUDIT_ARCH_I386, second, foreign);
    }
    assembler.jump_if(code::JUMP_EQUAL, AUDIT_ARCH_X86_64, first, foreign);
    assembler.push(code::LOAD, 0, 0, ARCHITECTURE);
    if assembler.reversed.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(assembler.reversed.len()));
    }
    Ok(assembler.reversed.iter().rev().map(|instruction| instruction.pack()).collect())
}

/// Position of an instruction, counted from the end of the program.
type Position = usize;

#[derive(Default)]
struct Assembler {
    reversed: Vec<Instruction>,
    /// The nearest return of each verdict.
    returns: HashMap<u32, Position>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Position {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len() - 1
    }

    /// Returns how many instructions the next one to be pushed would have to skip.
    fn distance(&self, target: Position) -> usize {
        self.reversed.len() - 1 - target
    }

    /// Returns a position that gives a verdict; a new return costs no more than a long jump would.
    fn verdict(&mut self, verdict: u32) -> Position {
        if let Some(&position) = self.returns.get(&verdict)
            && self.distance(position) < 240
        {
            return position;
        }
        let position = self.push(code::RETURN, 0, 0, verdict);
        self.returns.insert(verdict, position);
        position
    }

    /// Returns a position that leads to a target and is at most `reach` instructions away.
    fn near(&mut self, target: Position, reach: usize) -> Position {
        let distance = self.distance(target);
        if distance <= reach {
            return target;
        }
        let instruction = self.reversed[target];
        if instruction.code == code::RETURN {
            let position = self.push(code::RETURN, 0, 0, instruction.k);
            self.returns.insert(instruction.k, position);
            return position;
        }
        self.push(code::JUMP, 0, 0, distance as u32)
    }

    /// Emits a conditional jump.
    fn jump_if(&mut self, code: u16, k: u32, yes: Position, no: Position) -> Position {
        // Each may need one more instruction in between, which moves the other one away.
        let yes = self.near(yes, 254);
        let no = self.near(no, 255);
        let (jt, jf) = (self.distance(yes), self.distance(no));
        self.push(code, jt as u8, jf as u8, k)
    }

    /// Emits the search over an interface, with the loading of the number; returns its start.
    fn search(&mut self, interface: &Interface, x32: bool) -> Position {
        let unknown = Decision { rules: Vec::new(), otherwise: interface.unknown };
        let closed = Decision { rules: Vec::new(), otherwise: ERRNO | ENOSYS };
        let mut ranges: Vec<(u32, &Decision)> = Vec::new();
        let beyond = (interface.decisions.len() as u32, &unknown);
        let numbered = interface.decisions.iter().enumerate().map(|(number, decision)| (number as u32, decision));
        for (start, decision) in numbered.chain([beyond]).chain(x32.then_some((X32_BIT, &closed))) {
            if ranges.last().is_none_or(|(_, last)| *last != decision) {
                ranges.push((start, decision));
            }
        }
        let mut leaves = HashMap::new();
        let top = self.split(&ranges, &mut leaves);
        let top = self.near(top, 0);
        debug_assert_eq!(self.distance(top), 0);
        self.push(code::LOAD, 0, 0, NUMBER)
    }

    fn split<'a>(&mut self, ranges: &[(u32, &'a Decision)], leaves: &mut HashMap<&'a Decision, Position>) -> Position {
        match ranges {
            [] => self.verdict(KILL_PROCESS),
            [(_, decision)] => self.leaf(decision, leaves),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let above = self.split(high, leaves);
                let below = self.split(low, leaves);
                self.jump_if(code::JUMP_GREATER_EQUAL, high[0].0, above, below)
            }
        }
    }

    fn leaf<'a>(&mut self, decision: &'a Decision, leaves: &mut HashMap<&'a Decision, Position>) -> Position {
        if decision.rules.is_empty() {
            return self.verdict(decision.otherwise);
        }
        if let Some(position) = leaves.get(decision) {
            return *position;
        }
        let mut next = self.verdict(decision.otherwise);
        for group in groups(&decision.rules).iter().rev() {
            next = self.group(group, next);
        }
        leaves.insert(decision, next);
        next
    }

    fn group(&mut self, group: &Group<'_>, no: Position) -> Position {
        match group {
            Group::OneOf { index, mask, high, lows, verdict } => {
                let yes = self.verdict(*verdict);
                let low = self.one_of(*index, *mask as u32, lows, yes, no);
                self.equal(*index, true, (*mask >> 32) as u32, *high, low, no)
            }
            Group::All { conditions, verdict } => {
                let mut yes = self.verdict(*verdict);
                for condition in conditions.iter().rev() {
                    yes = self.condition(condition, yes, no);
                }
                yes
            }
        }
    }

    fn condition(&mut self, condition: &Condition, yes: Position, no: Position) -> Position {
        let Condition { index, mask, operator, value } = *condition;
        let (high, low) = ((value >> 32) as u32, value as u32);
        match operator {
            Operator::Equal | Operator::NotEqual => {
                let (yes, no) = if operator == Operator::Equal { (yes, no) } else { (no, yes) };
                let rest = self.equal(index, false, mask as u32, low, yes, no);
                self.equal(index, true, (mask >> 32) as u32, high, rest, no)
            }
            Operator::Greater => self.order(index, code::JUMP_GREATER, value, yes, no),
            Operator::GreaterEqual => self.order(index, code::JUMP_GREATER_EQUAL, value, yes, no),
            Operator::LessEqual => self.order(index, code::JUMP_GREATER, value, no, yes),
            Operator::Less => self.order(index, code::JUMP_GREATER_EQUAL, value, no, yes),
        }
    }

    /// Emits `(half & mask) == value`.
    fn equal(&mut self, index: u8, high: bool, mask: u32, value: u32, yes: Position, no: Position) -> Position {
        if value & !mask != 0 {
            return no;
        }
        if mask == 0 {
            return yes;
        }
        self.jump_if(code::JUMP_EQUAL, value, yes, no);
        self.masked_half(index, high, mask)
    }

    /// Emits an unsigned comparison of 64 bits; `last` decides where the upper halves are equal.
    fn order(&mut self, index: u8, last: u16, value: u64, yes: Position, no: Position) -> Position {
        let (high, low) = ((value >> 32) as u32, value as u32);
        self.jump_if(last, low, yes, no);
        let rest = self.masked_half(index, false, u32::MAX);
        let equal = self.jump_if(code::JUMP_EQUAL, high, rest, no);
        self.jump_if(code::JUMP_GREATER, high, yes, equal);
        self.masked_half(index, true, u32::MAX)
    }

    /// Emits the test of the lower half against several values.
    fn one_of(&mut self, index: u8, mask: u32, values: &[u32], yes: Position, no: Position) -> Position {
        let mut next = no;
        for (first, last) in spans(values).into_iter().rev() {
            next = if first == last {
                self.jump_if(code::JUMP_EQUAL, first, yes, next)
            } else {
                let within = self.jump_if(code::JUMP_GREATER, last, next, yes);
                self.jump_if(code::JUMP_GREATER_EQUAL, first, within, next)
            };
        }
        // The load must stand right before the first test.
        self.near(next, 0);
        self.masked_half(index, false, mask)
    }

    /// Emits the loading of one half of an argument; what was pushed last is what follows it.
    fn masked_half(&mut self, index: u8, high: bool, mask: u32) -> Position {
        if mask != u32::MAX {
            self.push(code::AND, 0, 0, mask);
        }
        // Arguments are little-endian 64-bit words from byte 16 on.
        self.push(code::LOAD, 0, 0, 16 + 8 * u32::from(index) + 4 * u32::from(high))
    }
}

/// Neighbouring rules that are tested together.
enum Group<'a> {
    /// The argument is one of several values with the same upper half: `index`, `mask`, upper half, lower halves.
    OneOf { index: u8, mask: u64, high: u32, lows: Vec<u32>, verdict: u32 },
    /// All conditions hold.
    All { conditions: &'a [Condition], verdict: u32 },
}

fn groups(rules: &[(Vec<Condition>, u32)]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (conditions, verdict) in rules {
        let [Condition { index, mask, operator: Operator::Equal, value }] = conditions.as_slice() else {
            groups.push(Group::All { conditions, verdict: *verdict });
            continue;
        };
        if value & !mask != 0 {
            // Can never hold.
            continue;
        }
        let high = (value >> 32) as u32;
        if let Some(Group::OneOf { index: i, mask: m, high: h, lows, verdict: v }) = groups.last_mut()
            && (*i, *m, *h, *v) == (*index, *mask, high, *verdict)
        {
            lows.push(*value as u32);
        } else {
            let lows = vec![*value as u32];
            groups.push(Group::OneOf { index: *index, mask: *mask, high, lows, verdict: *verdict });
        }
    }
    groups
}

/// Returns the values as ranges of neighbours, ascending.
fn spans(values: &[u32]) -> Vec<(u32, u32)> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut spans: Vec<(u32, u32)> = Vec::new();
    for value in sorted {
        match spans.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            _ => spans.push((value, value)),
        }
    }
    spans
}
