//! Proving who we are: name and password, or a token that the registry's token place gives out (*distribution "Token
//! Authentication Specification"*, "OAuth 2.0").
//!
//! Credentials are bound to a registry's exact host and port. They go to it, and to the token place that it names itself over
//! an equally safe way; what a redirect leads to is given none and is not asked what it wants.

use super::challenge::Challenge;
use super::error::{RegistryError, Result};
use super::http::{Http, Payload, Request};
use super::url::{Origin, Url, encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Longest answer of a token place, in bytes.
const MAX_ANSWER: u64 = 256 << 10;

/// What somebody proves to be themselves with.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Name and password.
    Password {
        /// Name.
        username: String,
        /// Password.
        password: String,
    },
    /// An identity token, for which the token place gives out others.
    Identity(String),
    /// A token for the registry itself.
    Registry(String),
}

impl std::fmt::Debug for Credential {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
            Self::Registry(_) => "Registry",
        })
    }
}

/// Knows credentials. Asked only when a registry wants some.
pub trait Credentials: Sync {
    /// Returns the credential filed under a registry's name, if there is one.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn find(&self, registry: &str) -> std::result::Result<Option<Credential>, String>;
}

/// What a token place answers.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// Answers a registry's challenges: returns the value of the `Authorization` field, `None` when we have nothing it takes.
///
/// # Errors
/// When the token place may not or cannot be asked.
pub(super) fn answer(
    http: &Http<'_>,
    registry: &Origin,
    name: &str,
    challenges: &[Challenge],
    scope: &str,
    credential: Option<&Credential>,
) -> Result<Option<String>> {
    if let Some(Credential::Registry(token)) = credential {
        return Ok(Some(format!("Bearer {token}")));
    }
    for challenge in challenges {
        match (challenge, credential) {
            (Challenge::Bearer { realm, service, scope: wanted }, _) => {
                let place = token_place(registry, realm).map_err(|why| RegistryError::Realm {
                    registry: name.to_owned(),
                    realm: realm.clone(),
                    why,
                })?;
                let scope = if scope.is_empty() { wanted } else { scope };
                return fetch(http, &place, name, service, scope, credential).map(Some);
            }
            (Challenge::Basic, Some(Credential::Password { username, password })) => {
                return Ok(Some(basic(username, password)));
            }
            (Challenge::Basic, _) => {}
        }
    }
    Ok(None)
}

/// Reads where a registry gives out tokens.
fn token_place(registry: &Origin, realm: &str) -> Result<Url, &'static str> {
    let place = Url::parse(realm).ok_or("that is no address to ask")?;
    if registry.secure && !place.origin.secure {
        return Err("it is not reached through TLS, as the registry is");
    }
    Ok(place)
}

fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

fn fetch(
    http: &Http<'_>,
    place: &Url,
    name: &str,
    service: &str,
    scope: &str,
    credential: Option<&Credential>,
) -> Result<String> {
    let mut parameters = Vec::new();
    // Several scopes are several parameters (*distribution "Token Authentication Specification"*).
    for (key, value) in [("service", service)].into_iter().chain(scope.split(' ').map(|scope| ("scope", scope))) {
        if !value.is_empty() {
            parameters.push((key, value));
        }
    }
    let form;
    let request = match credential {
        Some(Credential::Identity(token)) => {
            parameters.extend([("grant_type", "refresh_token"), ("client_id", "bulkhead"), ("refresh_token", token)]);
            let pairs: Vec<String> = parameters.iter().map(|(key, value)| format!("{key}={}", encode(value))).collect();
            form = pairs.join("&");
            let payload = Payload::Bytes(form.as_bytes());
            Request { payload, ..Request::new("POST", place) }
                .field("Content-Type", "application/x-www-form-urlencoded")
        }
        Some(Credential::Password { username, password }) => {
            parameters.push(("account", username));
            Request::new("GET", &place.with_query(&parameters)).field("Authorization", basic(username, password))
        }
        _ => Request::new("GET", &place.with_query(&parameters)),
    };
    let url = place.to_string();
    let (head, mut body) = http.send(request)?;
    let text = body.document(MAX_ANSWER, "the answer of the token place")?;
    match head.status {
        200 => {}
        401 | 403 => {
            let message = super::client::messages(&text);
            let message = if message.is_empty() { "the token place does not know us".to_owned() } else { message };
            return Err(RegistryError::Denied { registry: name.to_owned(), repository: scope.to_owned(), message });
        }
        _ => return Err(super::client::status_error(&head, url, &text)),
    }
    let answer: Answer = serde_json::from_slice(&text)
        .map_err(|source| RegistryError::Document { what: format!("the token from {url}"), source })?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let token = token.ok_or(RegistryError::Malformed { url, what: "the answer holds no token" })?;
    Ok(format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_asked_for_over_a_way_as_safe_as_the_registrys() {
        let origin = |secure| Origin { secure, host: "r".to_owned(), port: 1 };
        assert!(token_place(&origin(true), "https://auth.x/token").is_ok());
        assert!(token_place(&origin(false), "http://auth.x/token").is_ok());
        for bad in ["http://auth.x/token", "", "file:///etc/passwd", "https://u:p@auth.x/", "auth.x"] {
            assert!(token_place(&origin(true), bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_credential_shows_no_secret() {
        let secret = Credential::Password { username: "me".to_owned(), password: "hidden".to_owned() };
        assert_eq!(format!("{secret:?} {:?}", Credential::Identity("hidden".to_owned())), "Password Identity");
    }
}
