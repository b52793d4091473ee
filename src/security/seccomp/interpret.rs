//! Runs a seccomp program on a made-up system call: for tests, for counting what is allowed, and for checking a program
//! that was read from disk.

use super::{AUDIT_ARCH_I386, AUDIT_ARCH_X86_64, code};

/// What a filter is shown of a system call (`struct seccomp_data`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// System call number.
    pub number: u32,
    /// `AUDIT_ARCH_*` of the entry used.
    pub architecture: u32,
    /// The six arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// Returns an x86-64 system call.
    pub fn x86_64(number: u32, arguments: [u64; 6]) -> Self {
        Self { number, architecture: AUDIT_ARCH_X86_64, arguments }
    }

    /// Returns a 32-bit system call.
    pub fn i386(number: u32, arguments: [u64; 6]) -> Self {
        Self { number, architecture: AUDIT_ARCH_I386, arguments }
    }

    /// Returns the 32-bit word at a byte offset, as the kernel lays the structure out.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.architecture),
            // The instruction pointer, which no program of ours looks at.
            8 | 12 => Some(0),
            16..64 if offset.is_multiple_of(4) => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                Some(if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 })
            }
            _ => None,
        }
    }
}

/// One instruction, unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

impl Instruction {
    pub(super) fn unpack(word: u64) -> Self {
        Self { code: (word >> 48) as u16, jt: (word >> 40) as u8, jf: (word >> 32) as u8, k: word as u32 }
    }

    pub(super) fn pack(self) -> u64 {
        u64::from(self.code) << 48 | u64::from(self.jt) << 40 | u64::from(self.jf) << 32 | u64::from(self.k)
    }
}

/// Returns the verdict of a program for a call and how many instructions it took; `None` when the program is malformed.
pub fn run(program: &[u64], call: &Call) -> Option<(u32, usize)> {
    let mut accumulator = 0_u32;
    let mut at = 0_usize;
    // Jumps go forward only, so the program ends.
    for steps in 1.. {
        let instruction = Instruction::unpack(*program.get(at)?);
        let k = instruction.k;
        let branch = |condition: bool| usize::from(if condition { instruction.jt } else { instruction.jf });
        at += 1;
        match instruction.code {
            code::LOAD => accumulator = call.word(k)?,
            code::AND => accumulator &= k,
            code::JUMP => at = at.checked_add(k as usize)?,
            code::JUMP_EQUAL => at += branch(accumulator == k),
            code::JUMP_GREATER => at += branch(accumulator > k),
            code::JUMP_GREATER_EQUAL => at += branch(accumulator >= k),
            code::RETURN => return Some((k, steps)),
            _ => return None,
        }
    }
    None
}

/// Returns whether a program has the shape of ours: known instructions, loads inside the structure, jumps inside the
/// program, a return at the end.
pub(super) fn is_well_formed(program: &[u64]) -> bool {
    let length = program.len();
    let ends = program.last().is_some_and(|last| Instruction::unpack(*last).code == code::RETURN);
    ends && length <= super::MAX_INSTRUCTIONS
        && program.iter().enumerate().all(|(at, word)| {
            let instruction = Instruction::unpack(*word);
            let inside = |offset: usize| offset < length - at - 1;
            match instruction.code {
                code::LOAD => instruction.k < 64 && instruction.k.is_multiple_of(4),
                code::AND | code::RETURN => true,
                code::JUMP => inside(instruction.k as usize),
                code::JUMP_EQUAL | code::JUMP_GREATER | code::JUMP_GREATER_EQUAL => {
                    inside(usize::from(instruction.jt)) && inside(usize::from(instruction.jf))
                }
                _ => false,
            }
        })
}

/// Returns whether the program looks at an argument before it decides a call.
pub(super) fn reads_arguments(program: &[u64], call: &Call) -> bool {
    let mut at = 0_usize;
    let mut accumulator = 0_u32;
    while let Some(word) = program.get(at) {
        let Instruction { code, jt, jf, k } = Instruction::unpack(*word);
        at += 1;
        let skipped = |condition: bool| usize::from(if condition { jt } else { jf });
        match code {
            code::LOAD if k >= 16 => return true,
            code::LOAD => accumulator = call.word(k).unwrap_or(0),
            code::JUMP => at = at.saturating_add(k as usize),
            code::JUMP_EQUAL => at += skipped(accumulator == k),
            code::JUMP_GREATER => at += skipped(accumulator > k),
            code::JUMP_GREATER_EQUAL => at += skipped(accumulator >= k),
            _ => return false,
        }
    }
    false
}
