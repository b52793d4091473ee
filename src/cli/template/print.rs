//! Prints values as Go's `fmt` does.

use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt::Write as _;

/// Largest width or precision of a verb.
const MAX_WIDTH: usize = 1 << 12;

/// Returns the name of a value's Go type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Prints a value as `%v`; nothing at the top is `<no value>`, inside a list `<nil>`.
pub(super) fn write_value(out: &mut String, value: &Value, top: bool) {
    match value {
        Value::Null => out.push_str(if top { "<no value>" } else { "<nil>" }),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => write_number(out, number),
        Value::String(text) => out.push_str(text),
        Value::Array(list) => {
            out.push('[');
            for (index, item) in list.iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                write_value(out, item, false);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (index, (key, item)) in sorted(map).into_iter().enumerate() {
                if index > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_value(out, item, false);
            }
            out.push(']');
        }
    }
}

fn write_number(out: &mut String, number: &Number) {
    match number.as_f64() {
        Some(float) if number.is_f64() => out.push_str(&shortest(float, 'e')),
        _ => {
            let _ = write!(out, "{number}");
        }
    }
}

/// Lists what a map holds as Go prints it: by key.
fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}

/// Prints a float as Go's `%g` with the shortest digits: exponents below -4 and from 6 on.
fn shortest(float: f64, letter: char) -> String {
    let text = format!("{float:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let power: i32 = exponent.parse().unwrap_or(0);
    if float == 0.0 {
        return if float.is_sign_negative() { "-0".to_owned() } else { "0".to_owned() };
    }
    if (-4..6).contains(&power) { format!("{float}") } else { format!("{mantissa}{}", exponent_text(power, letter)) }
}

/// Prints an exponent with a sign and two digits at least.
fn exponent_text(power: i32, letter: char) -> String {
    format!("{letter}{}{:02}", if power < 0 { '-' } else { '+' }, power.unsigned_abs())
}

/// Quotes a text as Go's `strconv.Quote`.
pub(in crate::cli) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if u32::from(c) < 0x20 || c == '\x7f' => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c if c.is_control()
                || (c.is_whitespace() && c != ' ')
                || ('\u{200b}'..='\u{200f}').contains(&c)
                || ('\u{202a}'..='\u{202e}').contains(&c) =>
            {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Joins values as Go's `Sprint`: a blank between two that are both no text.
pub(super) fn sprint(values: &[Cow<'_, Value>]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 && !value.is_string() && !values[index - 1].is_string() {
            out.push(' ');
        }
        write_value(&mut out, value, false);
    }
    out
}

/// Joins values as Go's `Sprintln`.
pub(super) fn sprintln(values: &[Cow<'_, Value>]) -> String {
    let mut out = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(' ');
        }
        write_value(&mut out, value, false);
    }
    out.push('\n');
    out
}

/// Flags, width and precision of one verb.
#[derive(Clone, Default)]
struct Verb {
    plus: bool,
    minus: bool,
    sharp: bool,
    space: bool,
    zero: bool,
    width: Option<usize>,
    precision: Option<usize>,
}

/// Formats as Go's `Sprintf`.
pub(super) fn printf(format: &str, values: &[Cow<'_, Value>]) -> String {
    let mut out = String::new();
    let mut chars = format.chars().peekable();
    let mut next = 0;
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            match flag {
                '+' => verb.plus = true,
                '-' => verb.minus = true,
                '#' => verb.sharp = true,
                ' ' => verb.space = true,
                _ => verb.zero = true,
            }
        }
        verb.width = measure(&mut chars, values, &mut next);
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(measure(&mut chars, values, &mut next).unwrap_or(0));
        }
        let Some(letter) = chars.next() else {
            out.push_str("%!(NOVERB)");
            break;
        };
        if letter == '%' {
            out.push('%');
            continue;
        }
        let Some(value) = values.get(next) else {
            let _ = write!(out, "%!{letter}(MISSING)");
            continue;
        };
        next += 1;
        verb.write(&mut out, letter, value);
    }
    if next < values.len() {
        let extra: Vec<String> = values[next..]
            .iter()
            .map(|value| match value.as_ref() {
                Value::Null => "<nil>".to_owned(),
                value => format!("{}={}", type_name(value), plain(value)),
            })
            .collect();
        let _ = write!(out, "%!(EXTRA {})", extra.join(", "));
    }
    out
}

/// Reads a width or precision: digits, or `*` and the next value.
fn measure(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    values: &[Cow<'_, Value>],
    next: &mut usize,
) -> Option<usize> {
    if chars.next_if_eq(&'*').is_some() {
        let value = values.get(*next).and_then(|value| value.as_u64());
        *next += 1;
        return value.map(|value| usize::try_from(value).unwrap_or(MAX_WIDTH).min(MAX_WIDTH));
    }
    let mut number: Option<usize> = None;
    while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
        chars.next();
        number = Some((number.unwrap_or(0) * 10 + digit as usize).min(MAX_WIDTH));
    }
    number
}

fn plain(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, false);
    text
}

impl Verb {
    fn write(&self, out: &mut String, letter: char, value: &Value) {
        match (letter, value) {
            ('v', Value::Array(_) | Value::Object(_)) if !self.sharp => self.pad(out, &plain(value), false),
            ('T', _) => self.pad(out, type_name(value), false),
            (_, Value::Array(list)) if letter != 'v' => {
                out.push('[');
                for (index, item) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    self.write(out, letter, item);
                }
                out.push(']');
            }
            (_, Value::Object(map)) if letter != 'v' => {
                out.push_str("map[");
                for (index, (key, item)) in sorted(map).into_iter().enumerate() {
                    if index > 0 {
                        out.push(' ');
                    }
                    self.write(out, letter, &Value::String(key.clone()));
                    out.push(':');
                    self.write(out, letter, item);
                }
                out.push(']');
            }
            ('v', Value::Null) => self.pad(out, "<nil>", false),
            (_, Value::Null) => {
                let _ = write!(out, "%!{letter}(<nil>)");
            }
            (_, Value::Bool(value)) if matches!(letter, 'v' | 't') => {
                self.pad(out, if *value { "true" } else { "false" }, false)
            }
            (_, Value::String(text)) => match self.text(letter, text) {
                Some(made) => self.pad(out, &made, false),
                None => bad(out, letter, value),
            },
            (_, Value::Number(number)) => match self.number(letter, number) {
                Some(made) => self.pad(out, &made, !matches!(letter, 'c' | 'q' | 'U')),
                None => bad(out, letter, value),
            },
            _ => bad(out, letter, value),
        }
    }

    fn text(&self, letter: char, text: &str) -> Option<String> {
        let cut: String = match self.precision {
            Some(precision) if matches!(letter, 'v' | 's' | 'q') => text.chars().take(precision).collect(),
            _ => text.to_owned(),
        };
        let hex = |upper: bool| {
            let mut made = String::with_capacity(text.len() * 2);
            for byte in text.bytes() {
                let _ = if upper { write!(made, "{byte:02X}") } else { write!(made, "{byte:02x}") };
            }
            made
        };
        match letter {
            'v' if self.sharp => Some(quote(&cut)),
            'v' | 's' => Some(cut),
            'q' => Some(quote(&cut)),
            'x' => Some(hex(false)),
            'X' => Some(hex(true)),
            _ => None,
        }
    }

    fn number(&self, letter: char, number: &Number) -> Option<String> {
        if number.is_f64() {
            return self.float(letter, number.as_f64()?);
        }
        let value = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))?;
        let sign = if value < 0 {
            "-"
        } else if self.plus {
            "+"
        } else if self.space {
            " "
        } else {
            ""
        };
        let size = value.unsigned_abs();
        let character = || u32::try_from(size).ok().and_then(char::from_u32).unwrap_or('\u{fffd}');
        let digits = match letter {
            'v' | 'd' => format!("{size}"),
            'x' => format!("{}{size:x}", if self.sharp { "0x" } else { "" }),
            'X' => format!("{}{size:X}", if self.sharp { "0X" } else { "" }),
            'o' => format!("{}{size:o}", if self.sharp { "0" } else { "" }),
            'O' => format!("0o{size:o}"),
            'b' => format!("{}{size:b}", if self.sharp { "0b" } else { "" }),
            'c' => return Some(character().to_string()),
            'q' => return Some(format!("'{}'", character())),
            'U' => return Some(format!("U+{size:04X}")),
            // Integers do not become floats by a verb: Go prints them as an error.
            _ => return None,
        };
        let digits = match self.precision {
            Some(precision) => format!("{digits:0>precision$}"),
            None => digits,
        };
        Some(format!("{sign}{digits}"))
    }

    fn float(&self, letter: char, value: f64) -> Option<String> {
        let body = match (letter, self.precision) {
            ('v', None) => shortest(value, 'e'),
            ('g' | 'G', None) => shortest(value, if letter == 'g' { 'e' } else { 'E' }),
            ('f' | 'F', precision) => format!("{value:.*}", precision.unwrap_or(6)),
            ('e' | 'E', precision) => {
                let text = format!("{value:.*e}", precision.unwrap_or(6));
                let (mantissa, power) = text.split_once('e')?;
                format!("{mantissa}{}", exponent_text(power.parse().ok()?, letter))
            }
            ('v' | 'g' | 'G', Some(precision)) => {
                let precision = precision.max(1);
                let text = format!("{value:.*e}", precision - 1);
                let (mantissa, power) = text.split_once('e')?;
                let power: i32 = power.parse().ok()?;
                let trim = |text: &str| match text.contains('.') {
                    true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                    false => text.to_owned(),
                };
                if power < -4 || power >= precision as i32 {
                    format!("{}{}", trim(mantissa), exponent_text(power, 'e'))
                } else {
                    trim(&format!("{value:.*}", (precision as i32 - 1 - power).max(0) as usize))
                }
            }
            _ => return None,
        };
        Some(if self.plus && value >= 0.0 { format!("+{body}") } else { body })
    }

    fn pad(&self, out: &mut String, text: &str, numeric: bool) {
        let width = self.width.unwrap_or(0);
        let missing = width.saturating_sub(text.chars().count());
        if missing == 0 {
            out.push_str(text);
        } else if self.minus {
            out.push_str(text);
            out.extend(std::iter::repeat_n(' ', missing));
        } else if self.zero && (!numeric || self.precision.is_none() || text.contains('.')) {
            let signed = usize::from(numeric && text.starts_with(['-', '+', ' ']));
            out.push_str(&text[..signed]);
            out.extend(std::iter::repeat_n('0', missing));
            out.push_str(&text[signed..]);
        } else {
            out.extend(std::iter::repeat_n(' ', missing));
            out.push_str(text);
        }
    }
}

/// Prints Go's complaint about a verb that does not fit: `%!d(string=x)`.
fn bad(out: &mut String, letter: char, value: &Value) {
    let _ = write!(out, "%!{letter}({}={})", type_name(value), plain(value));
}
