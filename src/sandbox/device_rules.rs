//! Which device nodes a container's processes may use: rules, their spelling for version 1 of control groups, and the program
//! that keeps them on version 2 (*cgroup-v2* "Device controller": one of `BPF_PROG_TYPE_CGROUP_DEVICE`).

use super::bundle::Device;
use std::fmt;

/// Making nodes, reading, writing, as the kernel numbers them (`BPF_DEVCG_ACC_*`).
const LETTERS: [(char, u8); 3] = [('m', 1), ('r', 2), ('w', 4)];

/// All three.
const ALL: u8 = 7;

/// Allows uses of some nodes; what no rule allows is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Block devices instead of character devices.
    pub block: bool,
    /// Major number; `None` is every one.
    pub major: Option<u32>,
    /// Minor number; `None` is every one.
    pub minor: Option<u32>,
    /// Set of uses allowed: 1 makes nodes, 2 reads, 4 writes.
    pub access: u8,
}

const fn node(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { block: false, major: Some(major), minor, access: ALL }
}

const fn make_any(block: bool) -> DeviceRule {
    DeviceRule { block, major: None, minor: None, access: 1 }
}

/// What every container may use: null, zero, full, random, urandom, tty, ptmx and terminals; and nodes may be made, which
/// opens none of them.
const COMMON: [DeviceRule; 10] = [
    make_any(false),
    make_any(true),
    node(1, Some(3)),
    node(1, Some(5)),
    node(1, Some(7)),
    node(1, Some(8)),
    node(1, Some(9)),
    node(5, Some(0)),
    node(5, Some(2)),
    node(136, None),
];

/// Lists the rules of a container with these devices.
pub(super) fn rules(devices: &[Device]) -> Vec<DeviceRule> {
    let given = devices.iter().map(|device| DeviceRule {
        block: device.block,
        major: Some(device.number.0),
        minor: Some(device.number.1),
        access: LETTERS.iter().filter(|(letter, _)| device.access.contains(*letter)).fold(0, |set, (_, bit)| set | bit),
    });
    COMMON.into_iter().chain(given).collect()
}

impl fmt::Display for DeviceRule {
    /// Spells it for `devices.allow`: `c 10:200 rw`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let kind = if self.block { 'b' } else { 'c' };
        write!(f, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let letters = ['r', 'w', 'm']
            .iter()
            .filter(|letter| LETTERS.iter().any(|(l, bit)| l == *letter && self.access & bit != 0));
        f.write_str(&letters.collect::<String>())
    }
}

/// Instructions of the machine (*BPF instruction set*, RFC 9669): operation, registers, jump, operand.
const LOAD: u8 = 0x61;
const COPY: u8 = 0xbc;
const SET: u8 = 0xb7;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNLESS: u8 = 0x56;
const EXIT: u8 = 0x95;

/// Registers: the result, the request (`struct bpf_cgroup_dev_ctx`), and what is taken from it.
const RESULT: u8 = 0;
const REQUEST: u8 = 1;
const ACCESS: u8 = 2;
const KIND: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const fn instruction(operation: u8, to: u8, from: u8, offset: i16, operand: u32) -> u64 {
    operation as u64 | (to as u64) << 8 | (from as u64) << 12 | (offset as u16 as u64) << 16 | (operand as u64) << 32
}

/// Assembles the program that answers 1 when one rule allows everything a request asks for, else 0.
pub(super) fn assemble(rules: &[DeviceRule]) -> Vec<u64> {
    let mut program = vec![
        // The first word has the kind in its low half and the uses asked for in its high half.
        instruction(LOAD, ACCESS, REQUEST, 0, 0),
        instruction(COPY, KIND, ACCESS, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, REQUEST, 4, 0),
        instruction(LOAD, MINOR, REQUEST, 8, 0),
    ];
    for rule in rules {
        let mut tests = vec![(KIND, if rule.block { 1 } else { 2 })];
        tests.extend(rule.major.map(|major| (MAJOR, major)));
        tests.extend(rule.minor.map(|minor| (MINOR, minor)));
        let rest: &[u64] = if rule.access == ALL {
            &[]
        } else {
            // What is asked for beyond the rule must be nothing.
            let beyond = u32::from(!rule.access);
            &[instruction(COPY, RESULT, ACCESS, 0, 0), instruction(AND, RESULT, 0, 0, beyond & 0xff)]
        };
        // A test that fails jumps over what is left of this rule: further tests, the rest and its test, the answer.
        let length = tests.len() + rest.len() + usize::from(!rest.is_empty()) + 2;
        for (place, (register, wanted)) in tests.iter().enumerate() {
            program.push(instruction(JUMP_UNLESS, *register, 0, (length - place - 1) as i16, *wanted));
        }
        program.extend(rest);
        if !rest.is_empty() {
            program.push(instruction(JUMP_UNLESS, RESULT, 0, 2, 0));
        }
        program.extend([instruction(SET, RESULT, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([instruction(SET, RESULT, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would; `None` for what its verifier would refuse.
    fn interpret(program: &[u64], request: [u32; 3]) -> Option<u64> {
        let mut registers = [None; 11];
        let mut next = 0usize;
        for _ in 0..program.len() {
            let word = *program.get(next)?;
            let (operation, to, from) = (word as u8, (word >> 8 & 15) as usize, (word >> 12 & 15) as usize);
            let (offset, operand) = ((word >> 16) as i16, (word >> 32) as u32);
            next += 1;
            match operation {
                0x61 if from == 1 && offset % 4 == 0 => {
                    registers[to] = Some(u64::from(*request.get(usize::try_from(offset).ok()? / 4)?));
                }
                0xbc => registers[to] = Some(registers[from]? & 0xffff_ffff),
                0xb7 => registers[to] = Some(i64::from(operand as i32) as u64),
                0x54 => registers[to] = Some(u64::from(registers[to]? as u32 & operand)),
                0x74 => registers[to] = Some(u64::from(registers[to]? as u32 >> operand)),
                0x56 if offset > 0 => {
                    if registers[to]? as u32 != operand {
                        next += offset as usize;
                    }
                }
                0x95 => return registers[0],
                _ => return None,
            }
        }
        None
    }

    fn device(block: bool, number: (u32, u32), access: &str) -> Device {
        let (target, mode, owner) = ("/d".to_owned(), 0o600, (0, 0));
        Device { target, block, number, mode, owner, access: access.to_owned() }
    }

    #[test]
    fn rules_are_spelt_for_version_one() {
        let all: Vec<_> = rules(&[device(true, (7, 3), "r"), device(false, (10, 200), "mrw")])
            .iter()
            .map(DeviceRule::to_string)
            .collect();
        let expected = [
            "c *:* m",
            "b *:* m",
            "c 1:3 rwm",
            "c 1:5 rwm",
            "c 1:7 rwm",
            "c 1:8 rwm",
            "c 1:9 rwm",
            "c 5:0 rwm",
            "c 5:2 rwm",
            "c 136:* rwm",
            "b 7:3 r",
            "c 10:200 rwm",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_program_is_assembled_word_for_word() {
        let rules = [node(1, Some(3)), DeviceRule { block: true, major: Some(7), minor: None, access: 2 }];
        let words: Vec<_> = assemble(&rules).iter().map(|word| format!("{word:016x}")).collect();
        let expected = [
            "0000000000001261", // r2 = request.access_type
            "00000000000023bc", // w3 = w2
            "0000ffff00000354", // w3 &= 0xffff
            "0000001000000274", // w2 >>= 16
            "0000000000041461", // r4 = request.major
            "0000000000081561", // r5 = request.minor
            "0000000200040356", // unless w3 == 2 (character): next rule
            "0000000100030456", // unless w4 == 1: next rule
            "0000000300020556", // unless w5 == 3: next rule
            "00000001000000b7", // r0 = 1
            "0000000000000095", // exit
            "0000000100060356", // unless w3 == 1 (block): next rule
            "0000000700050456", // unless w4 == 7: next rule
            "00000000000020bc", // w0 = w2
            "000000fd00000054", // w0 &= what is not reading
            "0000000000020056", // unless w0 == 0: next rule
            "00000001000000b7",
            "0000000000000095",
            "00000000000000b7", // r0 = 0
            "0000000000000095",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn programs_answer_as_their_rules_say() {
        let given = [
            device(false, (10, 200), "rwm"),
            device(true, (7, 3), "r"),
            device(true, (7, 4), "w"),
            device(true, (259, 0xf_ffff), "rw"),
            device(false, (0xfff, 0), ""),
        ];
        for devices in [&given[..], &[]] {
            let rules = rules(devices);
            let program = assemble(&rules);
            assert!(program.len() < 4096, "the limit of programs without CAP_BPF");
            for block in [false, true] {
                for major in [0, 1, 5, 7, 10, 136, 137, 259, 0xfff] {
                    for minor in [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 200, 0xf_ffff] {
                        for access in 1..=7u32 {
                            let kind = if block { 1 } else { 2 };
                            let allowed = rules.iter().any(|rule| {
                                rule.block == block
                                    && rule.major.is_none_or(|wanted| wanted == major)
                                    && rule.minor.is_none_or(|wanted| wanted == minor)
                                    && access & !u32::from(rule.access) == 0
                            });
                            let answer = interpret(&program, [access << 16 | kind, major, minor]);
                            let request = format!("{kind} {major}:{minor} {access}");
                            assert_eq!(answer, Some(u64::from(allowed)), "{request}");
                        }
                    }
                }
            }
        }
    }
}
