//! Constants as Go writes them: numbers, quoted strings, characters.

/// Reads a number as Go's templates do: decimal, `0x`, `0o`, `0b`, underscores, fractions, exponents.
pub(super) fn parse_number(text: &str) -> Option<serde_json::Value> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let plain = digits.replace('_', "");
    let lower = plain.to_ascii_lowercase();
    let radix = |prefix: &str, radix| lower.strip_prefix(prefix).map(|rest| i64::from_str_radix(rest, radix).ok());
    let whole = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    let whole = match whole {
        Some(None) => return None,
        Some(found) => found,
        None if lower.len() > 1 && lower.starts_with('0') && lower.bytes().all(|b| b.is_ascii_digit()) => {
            Some(i64::from_str_radix(&lower, 8).ok()?)
        }
        None => plain.parse().ok(),
    };
    if let Some(whole) = whole {
        return Some((if negative { -whole } else { whole }).into());
    }
    if !lower.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-')) {
        return None;
    }
    let value: f64 = lower.parse().ok()?;
    serde_json::Number::from_f64(if negative { -value } else { value }).map(Into::into)
}

/// Takes the quotes off a Go string or character constant.
pub(super) fn unquote(text: &str) -> Option<String> {
    let inner = text.get(1..text.len().checked_sub(1)?)?;
    if text.starts_with('`') {
        return Some(inner.replace('\r', ""));
    }
    let mut bytes = Vec::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let kind = chars.next()?;
        let (count, radix) = match kind {
            'x' => (2, 16),
            'u' => (4, 16),
            'U' => (8, 16),
            '0'..='7' => (2, 8),
            _ => (0, 10),
        };
        let mut digits: String = if radix == 8 { kind.to_string() } else { String::new() };
        digits.extend(chars.by_ref().take(count));
        match (kind, u32::from_str_radix(&digits, radix)) {
            ('x' | '0'..='7', Ok(code)) if digits.len() == count + usize::from(radix == 8) => {
                bytes.push(u8::try_from(code).ok()?)
            }
            ('u' | 'U', Ok(code)) if digits.len() == count => {
                bytes.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            }
            _ => bytes.push(match kind {
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 11,
                '\\' | '"' | '\'' => kind as u8,
                _ => return None,
            }),
        }
    }
    String::from_utf8(bytes).ok()
}
