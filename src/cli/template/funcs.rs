//! The functions of templates: Go's and those Docker adds.

use super::exec::truth;
use super::print::{printf, sprint, sprintln, type_name, write_value};
use serde_json::Value;
use std::borrow::Cow;
use std::cmp::Ordering;

/// Why a function failed.
#[derive(Debug)]
pub(super) enum FunctionError {
    /// The function says why.
    Call(String),
    /// The number of arguments is wrong; what was wanted.
    Count(&'static str),
    /// This argument is of the wrong kind.
    Argument(usize, String),
}

use FunctionError::{Argument, Call, Count};

type Result<T = Value> = std::result::Result<T, FunctionError>;
type Arguments<'a, 'd> = &'a [Cow<'d, Value>];

/// All functions by name.
const NAMES: [&str; 26] = [
    "and", "or", "not", "len", "index", "slice", "print", "printf", "println", "html", "js", "urlquery", "eq", "ne",
    "lt", "le", "gt", "ge", "json", "split", "join", "title", "lower", "upper", "pad", "truncate",
];

/// Tells whether a function exists.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls a function; with `header` the ones that shape text leave it alone, as in the header of a table.
pub(super) fn call(name: &str, values: Arguments<'_, '_>, header: bool) -> Result {
    if header && matches!(name, "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate") {
        return values.first().map(|value| value.clone().into_owned()).ok_or(Count("at least 1"));
    }
    match name {
        "not" => one(values).map(|value| (!truth(value)).into()),
        "len" => length(one(values)?),
        "index" => index(values),
        "slice" => slice(values),
        "print" => Ok(sprint(values).into()),
        "println" => Ok(sprintln(values).into()),
        "printf" => {
            let format = text(values, 0)?;
            Ok(printf(format, &values[1..]).into())
        }
        "html" => Ok(escape_html(&sprint(values)).into()),
        "js" => Ok(escape_js(&sprint(values)).into()),
        "urlquery" => Ok(escape_query(&sprint(values)).into()),
        "eq" => equal(values),
        "ne" | "lt" | "le" | "gt" | "ge" => compare(name, values),
        "json" => Ok(serde_json::to_string(one(values)?).map_err(|error| Call(error.to_string()))?.into()),
        "split" => {
            let (source, separator) = (two(values).and_then(|_| text(values, 0))?, text(values, 1)?);
            let parts: Vec<Value> = if separator.is_empty() {
                source.chars().map(|c| c.to_string().into()).collect()
            } else {
                source.split(separator).map(Into::into).collect()
            };
            Ok(parts.into())
        }
        "join" => join(values),
        "title" => one(values).and_then(|_| text(values, 0)).map(|source| title(source).into()),
        "lower" => one(values).and_then(|_| text(values, 0)).map(|source| source.to_lowercase().into()),
        "upper" => one(values).and_then(|_| text(values, 0)).map(|source| source.to_uppercase().into()),
        "pad" => {
            if values.len() != 3 {
                return Err(Count("3"));
            }
            let source = text(values, 0)?;
            let blanks = |count| " ".repeat(usize::try_from(count).unwrap_or(0).min(1 << 16));
            if source.is_empty() {
                return Ok(source.into());
            }
            Ok(format!("{}{source}{}", blanks(integer(values, 1)?), blanks(integer(values, 2)?)).into())
        }
        "truncate" => {
            let (source, length) = (two(values).and_then(|_| text(values, 0))?, integer(values, 1)?);
            let mut length =
                usize::try_from(length).map_err(|_| Call("slice bounds out of range".to_owned()))?.min(source.len());
            while !source.is_char_boundary(length) {
                length -= 1;
            }
            Ok(source[..length].into())
        }
        _ => Err(Call("not defined".to_owned())),
    }
}

fn one<'v>(values: Arguments<'v, '_>) -> Result<&'v Value> {
    match values {
        [value] => Ok(value),
        _ => Err(Count("1")),
    }
}

fn two(values: Arguments<'_, '_>) -> Result<()> {
    if values.len() == 2 { Ok(()) } else { Err(Count("2")) }
}

fn shown(value: &Value) -> String {
    let mut text = String::new();
    write_value(&mut text, value, true);
    text
}

fn text<'v>(values: Arguments<'v, '_>, at: usize) -> Result<&'v str> {
    match values.get(at).map(Cow::as_ref) {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(Argument(at, format!("expected string; found {}", shown(other)))),
        None => Err(Count("at least 1")),
    }
}

fn integer(values: Arguments<'_, '_>, at: usize) -> Result<i64> {
    match values.get(at).map(Cow::as_ref) {
        Some(Value::Number(number)) if number.as_i64().is_some() => Ok(number.as_i64().unwrap_or(0)),
        Some(other) => Err(Argument(at, format!("expected integer; found {}", shown(other)))),
        None => Err(Count("at least 1")),
    }
}

fn length(value: &Value) -> Result {
    match value {
        Value::String(text) => Ok(text.len().into()),
        Value::Array(list) => Ok(list.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        Value::Null => Err(Call("len of nil pointer".to_owned())),
        other => Err(Call(format!("len of type {}", type_name(other)))),
    }
}

/// Reads an index that must lie in `0..=last`.
fn position(value: &Value, last: usize) -> Result<usize> {
    let number = match value {
        Value::Number(number) => number.as_i64(),
        Value::Null => return Err(Call("cannot index slice/array with nil".to_owned())),
        _ => None,
    };
    let number = number.ok_or_else(|| Call(format!("cannot index slice/array with type {}", type_name(value))))?;
    usize::try_from(number).ok().filter(|at| *at <= last).ok_or_else(|| Call(format!("index out of range: {number}")))
}

fn index(values: Arguments<'_, '_>) -> Result {
    let (first, keys) = values.split_first().ok_or(Count("at least 1"))?;
    let mut item = first.clone().into_owned();
    for key in keys {
        item = match item {
            Value::Array(mut list) => {
                if list.is_empty() {
                    return Err(Call("reflect: slice index out of range".to_owned()));
                }
                let at = position(key, list.len() - 1)?;
                list.swap_remove(at)
            }
            Value::Object(mut map) => {
                let Value::String(name) = key.as_ref() else {
                    return Err(Call(format!("value has type {}; should be string", type_name(key))));
                };
                // A key that is missing gives Go's zero value: of texts the empty one.
                let texts = map.values().all(Value::is_string);
                map.swap_remove(name).unwrap_or(if texts { Value::String(String::new()) } else { Value::Null })
            }
            Value::String(text) if !text.is_empty() => {
                let at = position(key, text.len() - 1)?;
                text.as_bytes()[at].into()
            }
            Value::String(_) => return Err(Call("reflect: string index out of range".to_owned())),
            Value::Null => return Err(Call("index of untyped nil".to_owned())),
            other => return Err(Call(format!("can't index item of type {}", type_name(&other)))),
        };
    }
    Ok(item)
}

fn slice(values: Arguments<'_, '_>) -> Result {
    let (first, bounds) = values.split_first().ok_or(Count("at least 1"))?;
    let length = match first.as_ref() {
        Value::String(text) => text.len(),
        Value::Array(list) => list.len(),
        Value::Null => return Err(Call("slice of untyped nil".to_owned())),
        other => return Err(Call(format!("can't slice item of type {}", type_name(other)))),
    };
    if bounds.len() > 3 {
        return Err(Call(format!("too many slice indexes: {}", bounds.len())));
    }
    if bounds.len() == 3 && first.is_string() {
        return Err(Call("cannot 3-index slice a string".to_owned()));
    }
    let from = bounds.first().map_or(Ok(0), |bound| position(bound, length))?;
    let to = bounds.get(1).map_or(Ok(length), |bound| position(bound, length))?;
    if from > to {
        return Err(Call(format!("invalid slice index: {from} > {to}")));
    }
    match first.as_ref() {
        Value::String(text) => {
            text.get(from..to).map(Into::into).ok_or_else(|| Call("slice cuts a character".to_owned()))
        }
        Value::Array(list) => Ok(list[from..to].to_vec().into()),
        _ => Ok(Value::Null),
    }
}

fn join(values: Arguments<'_, '_>) -> Result {
    two(values)?;
    let Value::Array(list) = values[0].as_ref() else {
        return Err(match values[0].as_ref() {
            Value::Null => return Ok("".into()),
            other => {
                let kind = type_name(other);
                Argument(0, format!("wrong type for value; expected []string; got {kind}"))
            }
        });
    };
    let separator = text(values, 1)?;
    let parts: Vec<String> = list.iter().map(shown).collect();
    Ok(parts.join(separator).into())
}

/// Upper-cases the first letter of each word.
fn title(source: &str) -> String {
    let mut inside = false;
    let mut result = String::with_capacity(source.len());
    for c in source.chars() {
        if inside {
            result.push(c)
        } else {
            result.extend(c.to_uppercase())
        }
        inside = c.is_alphanumeric() || c == '_' || c == '\'';
    }
    result
}

/// Orders two values of the same basic kind.
fn order(a: &Value, b: &Value) -> std::result::Result<Ordering, &'static str> {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => Ok(match (a.as_i64(), b.as_i64()) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        }),
        (Value::String(a), Value::String(b)) => Ok(a.cmp(b)),
        (Value::Bool(_), Value::Bool(_)) | (Value::Null, _) => Err("invalid type for comparison"),
        (Value::Array(_) | Value::Object(_), _) => Err("invalid type for comparison"),
        _ => Err("incompatible types for comparison"),
    }
}

fn same(a: &Value, b: &Value) -> Result<bool> {
    match (a, b) {
        (Value::Null, other) | (other, Value::Null) => Ok(other.is_null()),
        (Value::Bool(a), Value::Bool(b)) => Ok(a == b),
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
            let kind = if a.is_array() || a.is_object() { a } else { b };
            Err(Call(format!("non-comparable type {}: {}", shown(kind), type_name(kind))))
        }
        _ => order(a, b).map(Ordering::is_eq).map_err(|message| Call(message.to_owned())),
    }
}

fn equal(values: Arguments<'_, '_>) -> Result {
    let (first, others) = values.split_first().ok_or(Count("at least 1"))?;
    if others.is_empty() {
        return Err(Call("missing argument for comparison".to_owned()));
    }
    for other in others {
        if same(first, other)? {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

fn compare(name: &str, values: Arguments<'_, '_>) -> Result {
    two(values)?;
    if name == "ne" {
        return same(&values[0], &values[1]).map(|same| (!same).into());
    }
    let order = order(&values[0], &values[1]).map_err(|message| Call(message.to_owned()))?;
    Ok(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }
    .into())
}

fn escape_html(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => result.push_str("&#34;"),
            '\'' => result.push_str("&#39;"),
            '&' => result.push_str("&amp;"),
            '<' => result.push_str("&lt;"),
            '>' => result.push_str("&gt;"),
            '\0' => result.push('\u{fffd}'),
            _ => result.push(c),
        }
    }
    result
}

fn escape_js(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => result.push_str("\\\\"),
            '\'' => result.push_str("\\'"),
            '"' => result.push_str("\\\""),
            '<' | '>' | '&' | '=' => result.push_str(&format!("\\u{:04X}", u32::from(c))),
            c if c.is_control() => result.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => result.push(c),
        }
    }
    result
}

fn escape_query(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => result.push(byte as char),
            b' ' => result.push('+'),
            _ => result.push_str(&format!("%{byte:02X}")),
        }
    }
    result
}
