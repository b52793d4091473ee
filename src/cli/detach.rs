//! Detach keys: the sequence that leaves an attached container running.

/// Spelling of the default sequence.
pub(super) const DEFAULT: &str = "ctrl-p,ctrl-q";

/// A sequence of keys and how much of it has been typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DetachKeys {
    sequence: Vec<u8>,
    matched: usize,
}

/// What a piece of input means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// These bytes go on to the container.
    Forward(Vec<u8>),
    /// These bytes go on, then the sequence was complete: detach.
    Detach(Vec<u8>),
}

impl DetachKeys {
    /// Reads a sequence: `ctrl-p,ctrl-q`, `ctrl-@`, `a`; an empty text switches detaching off.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut sequence = Vec::new();
        for key in text.split(',').filter(|_| !text.is_empty()) {
            let code = match (key.strip_prefix("ctrl-").map(str::as_bytes), key.as_bytes()) {
                (Some([letter @ b'a'..=b'z']), _) => letter - b'a' + 1,
                (Some([letter @ b'A'..=b'Z']), _) => letter - b'A' + 1,
                (Some(b"@"), _) => 0,
                (Some([sign @ b'['..=b'_']), _) => sign - b'[' + 27,
                (None, [letter]) => *letter,
                _ => return Err(format!("unknown character: '{key}'")),
            };
            sequence.push(code);
        }
        Ok(Self { sequence, matched: 0 })
    }

    /// Returns the sequence.
    #[cfg(any(test, fuzzing))]
    pub(super) fn keys(&self) -> &[u8] {
        &self.sequence
    }

    /// Takes typed bytes. Keys of a begun sequence are held back until it is complete or broken off.
    pub(super) fn feed(&mut self, input: &[u8]) -> Typed {
        let mut forward = Vec::with_capacity(input.len());
        for byte in input {
            while self.matched > 0 && self.sequence.get(self.matched) != Some(byte) {
                // Broken off: give out its first key and see what of the rest still begins the sequence.
                let typed: Vec<u8> = self.sequence[..self.matched].to_vec();
                forward.push(typed[0]);
                self.matched = (0..self.matched).rev().find(|n| typed.ends_with(&self.sequence[..*n])).unwrap_or(0);
                let given = typed.len() - 1 - self.matched;
                forward.extend_from_slice(&typed[1..=given]);
            }
            if self.sequence.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    self.matched = 0;
                    return Typed::Detach(forward);
                }
            } else {
                forward.push(*byte);
            }
        }
        Typed::Forward(forward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(keys: &str, input: &[&[u8]]) -> (Vec<u8>, bool) {
        let mut keys = DetachKeys::parse(keys).unwrap();
        let mut all = Vec::new();
        for piece in input {
            match keys.feed(piece) {
                Typed::Forward(bytes) => all.extend(bytes),
                Typed::Detach(bytes) => {
                    all.extend(bytes);
                    return (all, true);
                }
            }
        }
        (all, false)
    }

    #[test]
    fn the_sequence_detaches_and_nothing_of_it_is_sent() {
        assert_eq!(run(DEFAULT, &[b"ab\x10\x11cd"]), (b"ab".to_vec(), true));
        assert_eq!(run(DEFAULT, &[b"ab\x10", b"\x11"]), (b"ab".to_vec(), true));
    }

    #[test]
    fn a_broken_sequence_is_sent() {
        assert_eq!(run(DEFAULT, &[b"\x10x"]), (b"\x10x".to_vec(), false));
        assert_eq!(run(DEFAULT, &[b"\x10", b"\x10\x11"]), (b"\x10".to_vec(), true));
        assert_eq!(run("a,a,b", &[b"aaab"]), (b"a".to_vec(), true));
        assert_eq!(run("a,b,a,c", &[b"abab", b"ac"]), (b"ab".to_vec(), true));
        assert_eq!(run("a,b,a,c", &[b"abax"]), (b"abax".to_vec(), false));
    }

    #[test]
    fn keys_are_spelled_as_docker_spells_them() {
        assert_eq!(DetachKeys::parse("ctrl-a,ctrl-@,ctrl-[,ctrl-_,x").unwrap().sequence, [1, 0, 27, 31, b'x']);
        assert_eq!(run("", &[b"\x10\x11"]), (b"\x10\x11".to_vec(), false));
        for bad in ["ctrl-", "ctrl-1", "abc", "a,,b", ","] {
            assert!(DetachKeys::parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn without_the_sequence_every_byte_arrives(input in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut keys = DetachKeys::parse(DEFAULT).unwrap();
            let mut out = Vec::new();
            for byte in &input {
                match keys.feed(&[*byte]) {
                    Typed::Forward(bytes) => out.extend(bytes),
                    Typed::Detach(bytes) => { out.extend(bytes); break; }
                }
            }
            proptest::prop_assert!(input.starts_with(&out));
            if !input.windows(2).any(|pair| pair == [16, 17]) {
                proptest::prop_assert!(input.len() - out.len() <= 1);
            }
        }
    }
}
