//! What outsiders' documents go through here, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::{ImageConfig, Index, Manifest, Reference, to_go_json};
use regex::Regex;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::sync::LazyLock;

/// The grammar of complete references (*distribution "reference grammar"*): domain, path, tag, digest.
static GRAMMAR: LazyLock<Regex> = LazyLock::new(|| {
    let label = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])";
    let component = "[a-z0-9]+(?:(?:[.]|__?|-+)[a-z0-9]+)*";
    let expression = format!(
        r"\A(?:{label}(?:\.{label})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?/{component}(?:/{component})*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?\z"
    );
    Regex::new(&expression).expect("the grammar is an expression")
});

/// A reference: what is understood is in the grammar and is spelled back to the same; what is in the grammar is understood.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(reference) = text.parse::<Reference>() else {
        let named = text.split_once('/').is_some_and(|(domain, _)| domain.contains(['.', ':']));
        assert!(!named || text.len() > 255 || !GRAMMAR.is_match(text), "{text:?} is in the grammar");
        return;
    };
    assert!(GRAMMAR.is_match(&reference.to_string()), "{reference} is not in the grammar");
    for spelled in [reference.to_string(), reference.familiar()] {
        let again: Reference = spelled.parse().expect("our own spelling is a reference");
        assert_eq!(again, reference, "{spelled}");
    }
}

/// Whether a document has a number with a fraction: no field of ours, and kept to 16 digits only.
fn has_fraction(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(list) => list.iter().any(has_fraction),
        Value::Object(map) => map.values().any(has_fraction),
        _ => false,
    }
}

/// A config, a manifest or an index: written again, it reads the same.
pub fn documents(bytes: &[u8]) {
    fn round<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
        let Ok(first) = serde_json::from_slice::<T>(bytes) else { return };
        let written = to_go_json(&first).expect("what was read can be written");
        let second: T = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(to_go_json(&second).expect("it was written before"), written, "writing settles");
    }
    if serde_json::from_slice(bytes).is_ok_and(|value| has_fraction(&value)) {
        return;
    }
    round::<ImageConfig>(bytes);
    round::<Manifest>(bytes);
    round::<Index>(bytes);
}
