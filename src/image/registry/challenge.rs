//! What a 401 asks for (*RFC 9110 "Challenge and Response"*, *distribution "Token Authentication"*).

/// Most parameters of a challenge that are looked at.
const MAX_PARAMETERS: usize = 32;

/// A way to prove who we are that the registry takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with each request.
    Basic,
    /// A token that another place gives out.
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: String,
        /// For what; empty when the registry does not say.
        scope: String,
    },
}

/// Reads the challenges of all `WWW-Authenticate` fields, a token before name and password; unknown schemes are left out.
pub(super) fn challenges<'f>(fields: impl Iterator<Item = &'f str>) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = fields.flat_map(read).collect();
    found.sort_by_key(|challenge| matches!(challenge, Challenge::Basic));
    found
}

/// Reads one field: `Scheme name=value, name="value", Scheme ...`.
fn read(field: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = field;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let Some((scheme, after)) = token(rest) else { return found };
        let (parameters, after) = parameters(after);
        rest = after;
        let value = |name: &str| {
            let of = |(key, value): &(String, String)| key.eq_ignore_ascii_case(name).then(|| value.clone());
            parameters.iter().find_map(of).unwrap_or_default()
        };
        if scheme.eq_ignore_ascii_case("basic") {
            found.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            found.push(Challenge::Bearer { realm: value("realm"), service: value("service"), scope: value("scope") });
        }
    }
}

/// Reads `name=value` as long as they last; a token without `=` begins the next challenge.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', '\t', ',']);
        let Some((name, after)) = token(start) else { return (found, start) };
        let Some(after) = after.trim_start_matches([' ', '\t']).strip_prefix('=') else { return (found, start) };
        let after = after.trim_start_matches([' ', '\t']);
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => match unquote(quoted) {
                Some(read) => read,
                None => return (found, ""),
            },
            None => token(after).map_or((String::new(), after), |(value, after)| (value.to_owned(), after)),
        };
        if found.len() < MAX_PARAMETERS {
            found.push((name.to_owned(), value));
        }
        rest = after;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let part = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(c);
    let end = text.find(|c| !part(c)).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// Reads up to the closing quote; `None` when there is none.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.to_owned(), scope: scope.to_owned() }
    }

    fn check(field: &str, expected: &[Challenge]) {
        assert_eq!(challenges([field].into_iter()), expected, "{field}");
    }

    #[test]
    fn challenges_are_read() {
        check("Basic realm=\"Registry\"", &[Challenge::Basic]);
        check(
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
            &[bearer("https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push")],
        );
        check("bearer REALM=\"a\\\"b\" , service = x", &[bearer("a\"b", "x", "")]);
        check("Basic realm=a, Bearer realm=\"b\"", &[bearer("b", "", ""), Challenge::Basic]);
        check("Negotiate, Basic", &[Challenge::Basic]);
        check("Digest realm=\"x\", nonce=\"Bearer realm=y\"", &[]);
        for nothing in ["", ",", "=", "\"", "Bearer realm=\"open"] {
            assert!(challenges([nothing].into_iter()).iter().all(|c| *c == bearer("", "", "")), "{nothing:?}");
        }
    }
}
