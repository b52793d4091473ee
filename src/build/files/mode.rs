//! `--chmod`: octal and symbolic modes (*Dockerfile reference "COPY --chmod"*, *chmod(1)*).

use serde::{Serialize, Serializer};

/// A mode that is no mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an octal mode such as 755 nor a symbolic one such as u=rwX,go=rX")]
pub struct ModeError(pub String);

/// What `--chmod` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits.
    Octal(u32),
    /// As written, and its parts.
    Symbolic(String, Vec<Part>),
}

/// One operator of a symbolic mode with what it acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Whose bits: 0o700, 0o070, 0o007 or several.
    who: u32,
    operator: u8,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// Of each class alike: read, write, execute, execute where there is a reason to, set-id, sticky.
    Letters { bits: u32, reasonable: bool, set_id: bool, sticky: bool },
    /// The bits of a class as they are: how far they are shifted.
    Class(u32),
}

impl ModeChange {
    /// Reads a mode.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<Self, ModeError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
            return mode.map(Self::Octal).ok_or_else(|| ModeError(text.to_owned()));
        }
        let mut parts = Vec::new();
        for clause in text.split(',') {
            read_clause(clause.as_bytes(), &mut parts).ok_or_else(|| ModeError(text.to_owned()))?;
        }
        Ok(Self::Symbolic(text.to_owned(), parts))
    }

    /// Returns the mode of a file or directory that has `mode`.
    pub fn apply(&self, mode: u32, directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(_, parts) => parts.iter().fold(mode, |mode, part| part.apply(mode, directory)),
        }
    }
}

impl std::fmt::Display for ModeChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Octal(mode) => write!(f, "{mode:o}"),
            Self::Symbolic(text, _) => f.write_str(text),
        }
    }
}

impl Serialize for ModeChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Octal(mode) => serializer.serialize_u32(*mode),
            Self::Symbolic(text, _) => serializer.serialize_str(text),
        }
    }
}

fn read_clause(clause: &[u8], parts: &mut Vec<Part>) -> Option<()> {
    let end = clause.iter().position(|byte| !b"ugoa".contains(byte))?;
    let who = clause[..end].iter().fold(0, |who, byte| who | class(*byte));
    let who = if who == 0 { 0o777 } else { who };
    let mut rest = &clause[end..];
    while let Some((operator, behind)) = rest.split_first() {
        if !b"+-=".contains(operator) {
            return None;
        }
        let end = behind.iter().position(|byte| b"+-=".contains(byte)).unwrap_or(behind.len());
        let what = match &behind[..end] {
            [byte @ (b'u' | b'g' | b'o')] => What::Class(class(*byte).trailing_zeros()),
            letters => read_letters(letters)?,
        };
        parts.push(Part { who, operator: *operator, what });
        rest = &behind[end..];
    }
    Some(())
}

fn class(byte: u8) -> u32 {
    match byte {
        b'u' => 0o700,
        b'g' => 0o070,
        b'o' => 0o007,
        _ => 0o777,
    }
}

fn read_letters(letters: &[u8]) -> Option<What> {
    let (mut bits, mut reasonable, mut set_id, mut sticky) = (0, false, false, false);
    for letter in letters {
        match letter {
            b'r' => bits |= 0o444,
            b'w' => bits |= 0o222,
            b'x' => bits |= 0o111,
            b'X' => reasonable = true,
            b's' => set_id = true,
            b't' => sticky = true,
            _ => return None,
        }
    }
    Some(What::Letters { bits, reasonable, set_id, sticky })
}

impl Part {
    fn apply(self, mode: u32, directory: bool) -> u32 {
        let set_ids =
            (if self.who & 0o700 != 0 { 0o4000 } else { 0 }) | (if self.who & 0o070 != 0 { 0o2000 } else { 0 });
        let bits = match self.what {
            What::Class(shift) => (((mode >> shift) & 7) * 0o111) & self.who,
            What::Letters { bits, reasonable, set_id, sticky } => {
                let execute = if reasonable && (directory || mode & 0o111 != 0) { 0o111 } else { 0 };
                ((bits | execute) & self.who) | if set_id { set_ids } else { 0 } | if sticky { 0o1000 } else { 0 }
            }
        };
        match self.operator {
            b'+' => mode | bits,
            b'-' => mode & !bits,
            // A directory keeps its set-id bits, as with chmod(1).
            _ => (mode & !(self.who | if directory { 0 } else { set_ids })) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_changed_as_chmod_does() {
        for (text, before, file, directory) in [
            ("755", 0o644, 0o755, 0o755),
            ("0", 0o644, 0, 0),
            ("4755", 0o644, 0o4755, 0o4755),
            ("u=rwX,go=rX", 0o640, 0o644, 0o755),
            ("u=rwX,go=rX", 0o740, 0o755, 0o755),
            ("+x", 0o644, 0o755, 0o755),
            ("a+x,g-r", 0o644, 0o715, 0o715),
            ("go-rwx", 0o755, 0o700, 0o700),
            ("g=u", 0o740, 0o770, 0o770),
            ("o=g-w", 0o660, 0o664, 0o664),
            ("u+s,+t", 0o755, 0o5755, 0o5755),
            ("g+s", 0o755, 0o2755, 0o2755),
            ("a=", 0o777, 0, 0),
            ("u+", 0o700, 0o700, 0o700),
        ] {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!((change.apply(before, false), change.apply(before, true)), (file, directory), "{text}");
            assert_eq!(change.to_string(), text);
        }
        for bad in ["", "8", "99999", "u", "u=q", "x", "u+r;", "rwx", "u=rw,", "+x 1"] {
            assert!(ModeChange::parse(bad).is_err(), "{bad:?}");
        }
    }
}
