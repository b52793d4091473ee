//! What people's texts go through here, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::detach::{DetachKeys, Typed};
use super::template::{Missing, Options, Template};

pub use super::container::fuzz::values;

/// A `--format` template on data of every kind: what it writes is bounded, and the same every time.
pub fn template(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let data = serde_json::json!({
        "Name": "web", "Number": -7, "Big": u64::MAX, "Float": 1.5e30, "Yes": true, "Nothing": null,
        "List": [1, "two", [3]], "Map": {"a": 1, "b": {"C": [true]}}, "Text": "ünï\n\"q\"",
    });
    let parsed = Template::parse(text);
    if !text.contains("{{") {
        let plain = parsed.as_ref().map(|template| template.render(&data, Options::plain(Missing::Key)));
        assert_eq!(plain, Ok(Ok(text.to_owned())), "a text without actions is itself");
    }
    let Ok(template) = parsed else { return };
    for missing in [Missing::Key, Missing::Field("fuzz")] {
        let first = template.render(&data, Options::plain(missing));
        assert!(first.as_ref().is_ok_and(|text| text.len() <= 17 << 20) || first.is_err(), "the output is bounded");
        if first.as_ref().is_ok_and(|text| text.len() < 1 << 16) {
            assert_eq!(template.render(&data, Options::plain(missing)), first, "it says the same every time");
        }
    }
}

/// Detach keys (the first line) and what is typed in pieces (the others): the container gets every byte until the keys are
/// complete, in order, and detaching comes with the last key of their first occurrence.
pub fn detach(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Some((keys, typed)) = text.split_once('\n') else { return };
    let Ok(mut keys) = DetachKeys::parse(keys) else { return };
    let sequence = keys.keys().to_vec();
    let mut forwarded = Vec::new();
    let mut left = false;
    let mut before = 0;
    for piece in typed.as_bytes().chunks(1 + bytes.len() % 5) {
        before += piece.len();
        match keys.feed(piece) {
            Typed::Forward(bytes) => forwarded.extend(bytes),
            Typed::Detach(bytes) => {
                forwarded.extend(bytes);
                left = true;
                break;
            }
        }
    }
    let typed = &typed.as_bytes()[..before];
    let found =
        (!sequence.is_empty()).then(|| typed.windows(sequence.len()).position(|window| window == sequence)).flatten();
    assert_eq!(left, found.is_some(), "{sequence:?} in {typed:?}");
    match found {
        Some(at) => assert_eq!(forwarded, typed[..at]),
        None => {
            let held = typed.strip_prefix(&forwarded[..]).expect("what was typed, in order");
            assert!(sequence.starts_with(held), "only a begun sequence is held back");
        }
    }
}
