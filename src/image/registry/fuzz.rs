//! What registries answer, and what is kept of logins, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::challenge::{Challenge, challenges};
use super::client::messages;
use super::http::fuzz::head;
use super::retry::{Rest, rest_of, retry_after};
use super::url::Url;
use crate::config::DockerConfig;

/// An answer's head, and each of its lines as what a field may say: it is read the same however much of it has come; what is
/// read of it can be written in a line; addresses are spelled back; a range that is taken begins where it was asked for.
pub fn answers(bytes: &[u8]) {
    head(bytes);
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        if let Some(url) = Url::parse(line) {
            let spelled = format!("{}{}", url.origin, url.target);
            assert_eq!(Url::parse(&spelled).as_ref(), Some(&url), "{line:?}");
            assert!(url.target.starts_with('/') && url.target.bytes().all(|b| b.is_ascii_graphic()), "{line:?}");
            let base = Url::parse("https://a:1/b/c?d").unwrap_or_else(|| url.clone());
            if !line.starts_with("//") {
                assert_eq!(base.join(line), Some(url), "{line:?}");
            }
        }
        let found = challenges([line].into_iter());
        let length = |challenge: &Challenge| match challenge {
            Challenge::Basic => 0,
            Challenge::Bearer { realm, service, scope } => realm.len().max(service.len()).max(scope.len()),
        };
        assert!(found.len() <= line.len() && found.iter().all(|one| length(one) <= line.len()), "{line:?}");
        let _ = retry_after(line, 1_700_000_000);
        if let Ok(rest) = rest_of(5, 9, 206, Some(line)) {
            assert!(rest == Rest::Here && line.trim().starts_with("bytes "), "{line:?}");
        }
    }
    assert!(!messages(bytes).chars().any(char::is_control), "{text:?}");
    if let Ok(mut config) = DockerConfig::parse(&text) {
        assert!(DockerConfig::parse(&config.text()).is_ok(), "{text:?}");
        config.set("a.b:5", Some(("me", "p:w")));
        let login = config.login("a.b:5").ok().flatten();
        assert!(login.is_some_and(|login| login.username == "me" && login.password == "p:w"), "{text:?}");
        assert!(config.remove("a.b:5") && config.login("a.b:5").ok().flatten().is_none(), "{text:?}");
    }
}
