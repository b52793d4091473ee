//! Package URLs (*purl-spec*): names of packages anywhere.

/// Makes the package URL of a kind of package: a name that may have parts, a version and qualifiers, which have to be in order.
pub fn package_url(kind: &str, name: &str, version: &str, qualifiers: &[(&str, &str)]) -> String {
    let mut url = format!("pkg:{kind}/{}", quoted(name, "/"));
    if !version.is_empty() {
        url = format!("{url}@{}", quoted(version, ""));
    }
    let filled = qualifiers.iter().filter(|(_, value)| !value.is_empty());
    for (number, (key, value)) in filled.enumerate() {
        url = format!("{url}{}{key}={}", if number == 0 { '?' } else { '&' }, quoted(value, ""));
    }
    url
}

/// Replaces what may not stand in a part of it, but for the characters of `plain`.
fn quoted(text: &str, plain: &str) -> String {
    let one = |byte: u8| match char::from(byte) {
        c if c.is_ascii_alphanumeric() || "-._~".contains(c) || plain.contains(c) => c.to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_in_a_part_is_quoted() {
        let url = |version, qualifiers: &[(&str, &str)]| package_url("docker", "h:5000/a/b", version, qualifiers);
        assert_eq!(url("", &[]), "pkg:docker/h%3A5000/a/b");
        assert_eq!(
            url("1:2+ü", &[("a", ""), ("b", "x/y"), ("c", "d")]),
            "pkg:docker/h%3A5000/a/b@1%3A2%2B%C3%BC?b=x%2Fy&c=d"
        );
    }
}
