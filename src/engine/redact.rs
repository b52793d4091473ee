//! Taking secrets out of what a build step prints: neither the terminal nor a log of the builder shall hold them.

/// Shortest text that is looked for, bytes; shorter ones would take ordinary output apart.
const SHORTEST: usize = 4;
/// Shortest line of a secret of several lines that is looked for by itself, bytes.
const SHORTEST_LINE: usize = 12;
/// Most lines of one secret that are looked for.
const MAX_LINES: usize = 100;
/// What stands in its place.
const MASK: &[u8] = b"***";

/// Replaces texts in a stream that arrives in pieces.
#[derive(Default)]
pub(super) struct Redactor {
    /// Longest first.
    texts: Vec<Vec<u8>>,
    held: Vec<u8>,
}

impl Redactor {
    /// Looks for these secrets, without the line ends around them, and for the long lines of each.
    pub(super) fn new<'a>(secrets: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut texts: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let whole = secret.trim_ascii();
            let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            let lines = lines.filter(|line| line.len() >= SHORTEST_LINE).take(MAX_LINES);
            texts.extend([whole].into_iter().chain(lines).filter(|text| text.len() >= SHORTEST).map(<[u8]>::to_vec));
        }
        texts.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        texts.dedup();
        Self { texts, held: Vec::new() }
    }

    /// Passes on what can be told to be no secret; an empty piece passes on what was held back.
    pub(super) fn pass(&mut self, piece: &[u8], output: &mut dyn FnMut(&[u8])) {
        if self.texts.is_empty() {
            return output(piece);
        }
        self.held.extend_from_slice(piece);
        let mut clean = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let rest = &self.held[at..];
            if !piece.is_empty() && self.texts.iter().any(|text| text.len() > rest.len() && text.starts_with(rest)) {
                break;
            }
            if let Some(text) = self.texts.iter().find(|text| rest.starts_with(text)) {
                clean.extend_from_slice(MASK);
                at += text.len();
            } else {
                clean.push(self.held[at]);
                at += 1;
            }
        }
        self.held.drain(..at);
        if !clean.is_empty() || piece.is_empty() {
            output(&clean);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_pass_however_they_arrive() {
        let key = b"-----BEGIN KEY-----\nc2VjcmV0IG9mIGEga2V5\nshort\n-----END KEY-----\n";
        let secrets: [&[u8]; 4] = [b"hunter22\n", b"hunter22-and-more", b"abc", key];
        let text = b"hunter22 hunter22-and-more hunter2 abc\nc2VjcmV0IG9mIGEga2V5\nhunter22-and-mor hunt";
        for step in [1, 2, 7, 100] {
            let mut redactor = Redactor::new(secrets.into_iter());
            let mut seen = Vec::new();
            for piece in text.chunks(step) {
                redactor.pass(piece, &mut |bytes| seen.extend_from_slice(bytes));
            }
            redactor.pass(b"", &mut |bytes| seen.extend_from_slice(bytes));
            let seen = String::from_utf8(seen).unwrap();
            assert_eq!(seen, "*** *** hunter2 abc\n***\n***-and-mor hunt", "pieces of {step}");
        }
    }

    #[test]
    fn without_secrets_everything_passes_as_it_comes() {
        let mut count = 0;
        Redactor::new([].into_iter()).pass(b"x", &mut |bytes| count += bytes.len());
        assert_eq!(count, 1);
    }
}
