//! The frames an attached container's output comes in, see `shim::protocol`.

use std::io;

/// Takes frames out of what was read.
#[derive(Default)]
pub(super) struct Frames {
    /// Header being collected.
    header: [u8; 8],
    have: usize,
    /// Stream and bytes left of the current payload.
    stream: u8,
    left: usize,
    code: Vec<u8>,
}

impl Frames {
    /// Takes bytes, gives payloads to `show` with their stream, and returns the exit code when it has come.
    ///
    /// # Errors
    /// When `show` fails or the stream is not made of frames.
    pub(super) fn feed(
        &mut self,
        mut bytes: &[u8],
        show: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>,
    ) -> io::Result<Option<i32>> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let take = (8 - self.have).min(bytes.len());
                self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                if self.have < 8 {
                    break;
                }
                self.have = 0;
                self.stream = self.header[0];
                self.left =
                    u32::from_be_bytes([self.header[4], self.header[5], self.header[6], self.header[7]]) as usize;
                if !(1..=3).contains(&self.stream) {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the container's stream is garbled"));
                }
                continue;
            }
            let take = self.left.min(bytes.len());
            let (piece, rest) = bytes.split_at(take);
            bytes = rest;
            self.left -= take;
            if self.stream != 3 {
                show(self.stream, piece)?;
                continue;
            }
            self.code.extend_from_slice(&piece[..piece.len().min(16)]);
            if self.left == 0 {
                let text = String::from_utf8_lossy(&self.code);
                return Ok(text.trim().parse().ok());
            }
        }
        Ok(None)
    }
}

/// Writes a frame, as a shim does.
#[cfg(test)]
pub(super) fn frame(stream: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![stream, 0, 0, 0];
    bytes.extend((payload.len() as u32).to_be_bytes());
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let whole = [frame(1, b"out"), frame(2, b""), frame(2, b"err"), frame(3, b"42")].concat();
        for size in 1..whole.len() {
            let mut frames = Frames::default();
            let (mut seen, mut code) = (Vec::new(), None);
            for piece in whole.chunks(size) {
                let mut show = |stream, bytes: &[u8]| {
                    seen.extend(bytes.iter().map(|byte| (stream, *byte)));
                    Ok(())
                };
                code = frames.feed(piece, &mut show).unwrap().or(code);
            }
            assert_eq!(code, Some(42), "pieces of {size}");
            let bytes: Vec<u8> = seen.iter().map(|(_, byte)| *byte).collect();
            assert_eq!(bytes, b"outerr");
            assert!(
                seen[..3].iter().all(|(stream, _)| *stream == 1) && seen[3..].iter().all(|(stream, _)| *stream == 2)
            );
        }
    }

    #[test]
    fn a_garbled_stream_is_an_error() {
        assert!(Frames::default().feed(&frame(9, b"x"), &mut |_, _| Ok(())).is_err());
    }
}
