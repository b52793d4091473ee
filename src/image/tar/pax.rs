//! PAX extended headers: `length key=value\n` records.

/// Reads all records; `None` when the form is wrong.
pub(super) fn records(mut data: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut records = Vec::new();
    while !data.is_empty() {
        let blank = data.iter().take(20).position(|b| *b == b' ')?;
        let length: usize = std::str::from_utf8(&data[..blank]).ok()?.parse().ok()?;
        if length > data.len() || length < blank + 3 || data[length - 1] != b'\n' {
            return None;
        }
        let record = &data[blank + 1..length - 1];
        let equals = record.iter().position(|b| *b == b'=')?;
        records.push((&record[..equals], &record[equals + 1..]));
        data = &data[length..];
    }
    Some(records)
}

/// Appends one record.
pub(super) fn append(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Before the name of an extended attribute.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";
/// What stands for `=`, which ends a keyword, and for a `%` that would be read as one of the two (as GNU tar has them).
const CODES: [(&[u8], u8); 2] = [(b"%3D", b'='), (b"%25", b'%')];

/// Appends an extended attribute.
///
/// GNU tar writes every `%` as `%25`; Go, and so Docker, knows no codes. A `%` is written plainly where both read it so.
pub(super) fn append_attribute(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut key = ATTRIBUTE.to_vec();
    for (at, byte) in name.iter().enumerate() {
        let plain = *byte != b'=' && code(&name[at..]).is_none();
        match CODES.iter().find(|(_, meant)| !plain && meant == byte) {
            Some((code, _)) => key.extend_from_slice(code),
            None => key.push(*byte),
        }
    }
    append(out, &key, value);
}

/// Reads the name of an extended attribute; `None` when the key is that of something else.
pub(super) fn attribute(key: &[u8]) -> Option<Vec<u8>> {
    let mut rest = key.strip_prefix(ATTRIBUTE)?;
    let mut name = Vec::with_capacity(rest.len());
    while let Some((first, behind)) = rest.split_first() {
        let (byte, left) = code(rest).unwrap_or((*first, behind));
        name.push(byte);
        rest = left;
    }
    Some(name)
}

/// Reads the code a text begins with, and returns the rest.
fn code(text: &[u8]) -> Option<(u8, &[u8])> {
    CODES.iter().find_map(|(code, meant)| Some((*meant, text.strip_prefix(*code)?)))
}

/// Reads `seconds[.fraction]` into seconds and nanoseconds (rounded down).
pub(super) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    match (whole.starts_with('-'), nanos) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos)),
        _ => Some((seconds, nanos)),
    }
}

/// Reads a decimal number.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip_at_every_digit_boundary() {
        for length in [0, 1, 5, 90, 91, 92, 93, 94, 989, 990, 991, 992, 5000] {
            let value = vec![b'x'; length];
            let mut data = Vec::new();
            append(&mut data, b"path", &value);
            append(&mut data, b"b", b"2");
            assert_eq!(records(&data).unwrap(), [(&b"path"[..], &value[..]), (b"b", b"2")], "{length}");
        }
    }

    #[test]
    fn broken_records_are_refused() {
        for bad in [
            &b"5 a=b"[..],
            b"99 a=b\n",
            b"3 \n",
            b"x a=b\n",
            b"7 abcd\n",
            b"0 a=b\n",
            b"6 a=b\nz",
            b"18446744073709551616 a=b\n",
        ] {
            assert!(records(bad).is_none(), "{bad:?}");
        }
    }

    /// `user.a=b` was read as the attribute `user.a` with `b=` before its value.
    #[test]
    fn attributes_have_any_name() {
        for (name, key) in [
            ("user.a=b", "user.a%3Db"),
            ("user.100%", "user.100%"),
            ("user.%3d", "user.%3d"),
            ("user.%3D", "user.%253D"),
            ("user.%25", "user.%2525"),
        ] {
            let mut data = Vec::new();
            append_attribute(&mut data, name.as_bytes(), b"x=y");
            assert_eq!(records(&data).unwrap(), [(format!("SCHILY.xattr.{key}").as_bytes(), &b"x=y"[..])]);
        }
        // All names of up to five of the bytes that mean something here.
        let mut names = vec![Vec::new()];
        for from in 0.. {
            let Some(name) = names.get(from).cloned() else { break };
            let mut data = Vec::new();
            append_attribute(&mut data, &name, b"=");
            let [(key, b"=")] = records(&data).unwrap()[..] else { panic!("{name:?}: {data:?}") };
            assert_eq!(attribute(key), Some(name.clone()));
            if name.len() < 5 {
                names.extend(b"%=253Da".map(|byte| [&name[..], &[byte]].concat()));
            }
        }
        // GNU tar codes every percent sign.
        assert_eq!(attribute(b"SCHILY.xattr.user.100%25").unwrap(), b"user.100%");
        assert_eq!(attribute(b"SCHILY.acl.access"), None);
    }

    #[test]
    fn times_have_fractions_and_signs() {
        assert_eq!(time(b"5"), Some((5, 0)));
        assert_eq!(time(b"5.25"), Some((5, 250_000_000)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"5.1234567891"), Some((5, 123_456_789)));
        assert_eq!(time(b"x"), None);
        assert_eq!(time(b"5.x"), None);
    }
}
