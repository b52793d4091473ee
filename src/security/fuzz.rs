//! What outsiders' profiles go through here, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

pub use super::seccomp::fuzz::seccomp;

/// The text of `/proc/self/mountinfo`: each hierarchy once, at a place the text names.
pub fn mountinfo(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let layout = super::features::parse_cgroups(&text, |path| path.to_owned());
    let places: Vec<String> = text.lines().filter_map(|line| line.split(' ').nth(4)).map(plain).collect();
    for mount in layout.v1.iter().chain(&layout.v2) {
        let path = mount.path.to_str().expect("the text is one");
        assert!(places.iter().any(|place| place == path), "{path:?} is nowhere in the text");
    }
    for (at, mount) in layout.v1.iter().enumerate() {
        assert!(!mount.controllers.is_empty());
        assert!(layout.v1[..at].iter().all(|other| other.controllers != mount.controllers), "a hierarchy twice");
    }
}

/// Undoes the kernel's escapes from left to right, one after another.
fn plain(field: &str) -> String {
    let mut plain = String::new();
    let mut rest = field;
    while let Some(c) = rest.chars().next() {
        let escapes = [("\\040", ' '), ("\\011", '\t'), ("\\012", '\n'), ("\\134", '\\')];
        let escape = escapes.iter().find(|(escape, _)| rest.starts_with(escape));
        let (length, meant) = escape.map_or((c.len_utf8(), c), |(escape, meant)| (escape.len(), *meant));
        plain.push(meant);
        rest = &rest[length..];
    }
    plain
}
