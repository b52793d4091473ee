//! Heads of responses (*RFC 9112 "HTTP/1.1"*), read from bounded bytes.

/// Longest head of a response, in bytes.
pub(super) const MAX_HEAD: usize = 64 << 10;
/// Most header fields.
const MAX_FIELDS: usize = 200;

/// Status and header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::image::registry) struct Head {
    /// Status code, 100 to 599.
    pub(in crate::image::registry) status: u16,
    /// Whether the connection can be used again once the body has been read.
    pub(super) keep: bool,
    /// Fields in order; names in lower case.
    fields: Vec<(String, String)>,
}

/// How the end of a body is found (*RFC 9112 "Message Body Length"*).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// There are this many bytes.
    Length(u64),
    /// In pieces with their lengths.
    Chunked,
    /// The connection ends with it.
    Close,
}

impl Head {
    /// Returns the first field of a name, which is given in lower case.
    pub(in crate::image::registry) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Returns all fields of a name, which is given in lower case.
    pub(in crate::image::registry) fn fields<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h str> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Returns it as that of a connection's last answer.
    pub(super) fn last(self) -> Self {
        Self { keep: false, ..self }
    }

    /// Reads a head from the first bytes of a response; `None` when there is more to come. The number is that of its bytes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, &'static str> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            // What cannot become a response is known at once, so that no one waits for the rest of it.
            let start = b"HTTP/1.";
            let begins = bytes.iter().zip(start).all(|(found, wanted)| found == wanted);
            return if !begins {
                Err("the answer is not HTTP/1")
            } else if bytes.len() >= MAX_HEAD {
                Err("the head of the answer is longer than 64 KiB")
            } else {
                Ok(None)
            };
        };
        if end + 4 > MAX_HEAD {
            return Err("the head of the answer is longer than 64 KiB");
        }
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| "a header field is not text")?;
        let mut lines = text.split("\r\n");
        let (version, status) = status_line(lines.next().unwrap_or_default()).ok_or("the status line is malformed")?;
        let mut fields = Vec::new();
        for line in lines {
            if fields.len() == MAX_FIELDS {
                return Err("the answer has more than 200 header fields");
            }
            fields.push(field(line).ok_or("a header field is malformed")?);
        }
        let mut head = Self { status, keep: version == 1, fields };
        let close = head
            .fields("connection")
            .flat_map(|value| value.split(','))
            .any(|option| option.trim().eq_ignore_ascii_case("close"));
        head.keep &= !close;
        Ok(Some((head, end + 4)))
    }

    /// Tells how long the body is.
    ///
    /// # Errors
    /// What is wrong with the fields that say it.
    pub(super) fn framing(&self, method: &str) -> Result<Framing, &'static str> {
        if method == "HEAD" || self.status < 200 || matches!(self.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        let mut lengths = self.fields("content-length");
        let length = match lengths.next() {
            None => None,
            Some(text) if lengths.any(|other| other != text) => return Err("the answer has several lengths"),
            Some(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(text.parse().map_err(|_| "the length of the answer is no number")?)
            }
            Some(_) => return Err("the length of the answer is no number"),
        };
        let mut codings = self.fields("transfer-encoding");
        match (codings.next(), codings.next(), length) {
            (None, _, Some(length)) => Ok(Framing::Length(length)),
            (None, _, None) => Ok(Framing::Close),
            (Some(coding), None, None) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            (Some(_), _, Some(_)) => Err("the answer has a length and a transfer coding"),
            (Some(_), _, None) => Err("the answer has a transfer coding other than chunked"),
        }
    }
}

/// Reads `HTTP/1.x NNN reason`: the minor version and the status.
fn status_line(line: &str) -> Option<(u8, u16)> {
    let (version, rest) = line.strip_prefix("HTTP/1.")?.split_once(' ')?;
    let version = match version {
        "0" => 0,
        "1" => 1,
        _ => return None,
    };
    let digits = rest.get(..3)?;
    let fine = digits.bytes().all(|b| b.is_ascii_digit()) && (rest.len() == 3 || rest.as_bytes()[3] == b' ');
    let status: u16 = digits.parse().ok()?;
    (fine && (100..600).contains(&status)).then_some((version, status))
}

/// Reads `name: value`.
fn field(line: &str) -> Option<(String, String)> {
    let (name, value) = line.split_once(':')?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let value = value.trim_matches([' ', '\t']);
    let fine =
        !name.is_empty() && name.bytes().all(token) && value.bytes().all(|b| b >= b' ' && b != 0x7f || b == b'\t');
    fine.then(|| (name.to_ascii_lowercase(), value.to_owned()))
}

/// Reads the line before a piece of a chunked body: its length in bytes.
///
/// # Errors
/// When it is no length.
pub(super) fn chunk_length(line: &[u8]) -> Result<u64, &'static str> {
    let digits = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).unwrap_or_default();
    if text.is_empty() || text.len() > 15 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("a piece of the answer has no length");
    }
    u64::from_str_radix(text, 16).map_err(|_| "a piece of the answer has no length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing(method: &str, fields: &str) -> Result<Framing, &'static str> {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let (head, length) = Head::parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!(length, text.len());
        head.framing(method)
    }

    #[test]
    fn a_head_is_read_when_it_is_whole() {
        let text = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"a\"\r\nx:\t y \r\n\r\nbody";
        for end in 0..text.len() - 4 {
            assert_eq!(Head::parse(&text[..end]), Ok(None), "{end}");
        }
        let (head, length) = Head::parse(text).unwrap().unwrap();
        assert_eq!((head.status, head.keep, length), (401, true, text.len() - 4));
        assert_eq!(head.field("www-authenticate"), Some("Basic realm=\"a\""));
        assert_eq!(head.field("x"), Some("y"));
        assert_eq!(head.field("absent"), None);
        let (old, _) = Head::parse(b"HTTP/1.0 200 OK\r\n\r\n").unwrap().unwrap();
        let (closing, _) = Head::parse(b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\n\r\n").unwrap().unwrap();
        assert!(!old.keep && !closing.keep);
    }

    #[test]
    fn malformed_heads_are_refused() {
        for bad in [
            "SSH-2.0-x",
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 2000 OK\r\n\r\n",
            "HTTP/1.1 999 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\n folded: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\na: b\x01\r\n\r\n",
        ] {
            assert!(Head::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "x".repeat(MAX_HEAD));
        assert!(Head::parse(long.as_bytes()).is_err());
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_FIELDS + 1));
        assert!(Head::parse(many.as_bytes()).is_err());
    }

    #[test]
    fn the_end_of_a_body_is_known_or_refused() {
        assert_eq!(framing("GET", "Content-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("GET", "Content-Length: 5\r\nContent-Length: 5\r\n"), Ok(Framing::Length(5)));
        assert_eq!(framing("HEAD", "Content-Length: 5\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing("GET", "Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(framing("GET", ""), Ok(Framing::Close));
        for bad in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
        ] {
            assert!(framing("GET", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_of_pieces_are_read() {
        assert_eq!(chunk_length(b"1aF"), Ok(0x1af));
        assert_eq!(chunk_length(b"0;x=y"), Ok(0));
        for bad in [&b""[..], b"-1", b"0x1", b"ffffffffffffffff", b"g"] {
            assert!(chunk_length(bad).is_err(), "{bad:?}");
        }
    }
}
