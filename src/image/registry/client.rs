//! Asking a registry (*OCI distribution-spec 1.1*): authorization, redirects, patience.

use super::challenge::challenges;
use super::endpoint::Endpoint;
use super::error::{RegistryError, Result};
use super::http::{Body, Deadlines, Halt, Head, Http, Payload, Proxies, Request, rest};
use super::retry::{pause, retry_after};
use super::tls::{Tls, Trust};
use super::token::{self, Credentials};
use super::url::{Origin, Url};
use crate::config::Registries;
use serde::Deserialize;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most redirects that are followed.
const MAX_HOPS: u32 = 8;
/// Longest explanation of a refusal that is read, in bytes.
const MAX_EXPLANATION: u64 = 64 << 10;

/// Something the user may want to know while they wait.
#[derive(Debug)]
pub enum Notice<'n> {
    /// What was asked failed and is asked again after a pause.
    Again {
        /// What failed.
        error: &'n RegistryError,
        /// How long is waited.
        after: Duration,
    },
    /// A mirror is of no use; the next place is asked.
    Next {
        /// What failed.
        error: &'n (dyn std::error::Error + 'static),
        /// Which place.
        endpoint: &'n str,
    },
}

/// How registries are asked.
pub struct Options<'a> {
    /// The operator's rules.
    pub rules: Registries,
    /// Certificates.
    pub trust: Trust,
    /// Proxies.
    pub proxies: Proxies,
    /// Who we are.
    pub credentials: &'a dyn Credentials,
    /// Readable when the caller wants to stop.
    pub interrupt: Option<BorrowedFd<'a>>,
    /// Told what goes wrong and is tried again.
    pub notice: &'a (dyn Fn(Notice<'_>) + Sync),
}

/// Asks registries, for the length of one command.
pub struct Client<'a> {
    pub(super) http: Http<'a>,
    pub(super) rules: Registries,
    credentials: &'a dyn Credentials,
    notice: &'a (dyn Fn(Notice<'_>) + Sync),
    known: Mutex<Known>,
}

/// What was learned of registries.
#[derive(Default)]
struct Known {
    /// The way to an endpoint that works, by the endpoint's first.
    ways: HashMap<Origin, Origin>,
    /// Values of `Authorization`, by registry and scope.
    authorizations: HashMap<(Origin, String), String>,
}

/// What may be done with a repository, as tokens name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Reading.
    Pull,
    /// Reading and writing.
    Push,
}

/// A repository at one endpoint.
pub(super) struct Repository<'c, 'a> {
    pub(super) client: &'c Client<'a>,
    pub(super) endpoint: Endpoint,
    /// Its path on the registry.
    pub(super) path: String,
    pub(super) access: Access,
    /// Other repositories there that are read meanwhile, for their tokens' sake.
    pub(super) others: Vec<String>,
}

impl<'a> Client<'a> {
    /// Makes a client; nothing is read or asked yet.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn new(options: Options<'a>) -> Result<Self> {
        let Options { rules, trust, proxies, credentials, interrupt, notice } = options;
        let standard = Deadlines::default();
        let deadlines = Deadlines {
            connect: rules.connect_timeout.unwrap_or(standard.connect),
            idle: rules.idle_timeout.unwrap_or(standard.idle),
            document: rules.document_timeout.unwrap_or(standard.document),
        };
        let unchecked = rules.clone();
        let tls = Tls::new(trust, move |origin| super::endpoint::is_insecure(origin, &unchecked));
        let halt = Halt::new(interrupt).map_err(|source| RegistryError::Io { action: "make a descriptor", source })?;
        Ok(Self { http: Http::new(tls, proxies, deadlines, halt), rules, credentials, notice, known: Mutex::default() })
    }

    /// Asks a registry whether it takes the credential we have for it.
    ///
    /// # Errors
    /// When it does not, or cannot be asked.
    pub fn verify(&self, registry: &str) -> Result<()> {
        let nowhere = || RegistryError::Resolve { host: registry.to_owned(), reason: "it is no host".to_owned() };
        let endpoint = super::endpoint::for_push(registry, &self.rules).ok_or_else(nowhere)?;
        let all = Repository { client: self, endpoint, path: String::new(), access: Access::Pull, others: Vec::new() };
        let url = all.url("")?;
        let (head, body) = all.ask("GET", &url, &[], None, false)?;
        match head.status {
            200 => Ok(()),
            _ => Err(refused(&head, &url, body)),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the user something.
    pub(super) fn tell(&self, notice: Notice<'_>) {
        (self.notice)(notice);
    }

    /// Does something, and again while it fails in a passing way.
    ///
    /// # Errors
    /// The last failure.
    pub(super) fn patiently<T>(&self, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            match act() {
                Err(error) if error.is_passing() => {
                    failures += 1;
                    self.rest_after(error, failures)?;
                }
                other => return other,
            }
        }
    }

    /// Rests after a number of failures in a row; gives the error back when there is no point in more.
    ///
    /// # Errors
    /// That error, or that the caller wants to stop.
    pub(super) fn rest_after(&self, error: RegistryError, failures: u32) -> Result<()> {
        let chance = u16::from_ne_bytes(random());
        let Some(after) = pause(failures, error.wait(), chance) else { return Err(error) };
        self.tell(Notice::Again { error: &error, after });
        match rest(after, &self.http.halt) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RegistryError::Interrupted),
            Err(source) => Err(RegistryError::Io { action: "wait for the registry", source }),
        }
    }
}

/// Two random bytes, or none where the system has none at hand.
fn random() -> [u8; 2] {
    let mut bytes = [0; 2];
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes
}

impl<'c, 'a> Repository<'c, 'a> {
    /// Returns the scope of its tokens.
    fn scope(&self) -> String {
        if self.path.is_empty() {
            return String::new();
        }
        let actions = if self.access == Access::Push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.path);
        let others = self.others.iter().map(|other| format!("repository:{other}:pull"));
        std::iter::once(own).chain(others).collect::<Vec<_>>().join(" ")
    }

    /// Returns the way to the registry, and finds it out where there are several.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn origin(&self) -> Result<Origin> {
        let Some((first, others)) = self.endpoint.origins.split_first() else {
            return Err(RegistryError::Resolve {
                host: self.endpoint.name.clone(),
                reason: "it is no host".to_owned(),
            });
        };
        if others.is_empty() {
            return Ok(first.clone());
        }
        if let Some(way) = self.client.known().ways.get(first) {
            return Ok(way.clone());
        }
        let mut failed = None;
        for way in &self.endpoint.origins {
            match self.client.http.send(Request::new("GET", &way.url(format!("{}/v2/", self.endpoint.prefix)))) {
                Ok((_, body)) => {
                    body.drain();
                    self.client.known().ways.insert(first.clone(), way.clone());
                    return Ok(way.clone());
                }
                // A name without an address has none by any way.
                Err(error @ (RegistryError::Interrupted | RegistryError::Resolve { .. })) => return Err(error),
                // That nobody listens is the better reason; that TLS was not understood only leads to the next way.
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(RegistryError::Interrupted))
    }

    /// Returns the address of something of this repository.
    ///
    /// # Errors
    /// When there is no way to the registry.
    pub(super) fn url(&self, rest: &str) -> Result<Url> {
        let slash = if self.path.is_empty() { "" } else { "/" };
        Ok(self.origin()?.url(format!("{}/v2/{}{slash}{rest}", self.endpoint.prefix, self.path)))
    }

    /// Makes an exchange with the registry: proves who we are when asked, and follows redirects with `follow`.
    ///
    /// # Errors
    /// When there is no answer, or we cannot prove who we are.
    pub(super) fn ask(
        &self,
        method: &'static str,
        url: &Url,
        fields: &[(&'static str, String)],
        payload: Option<&[u8]>,
        follow: bool,
    ) -> Result<(Head, Body<'c, 'a>)> {
        let home = self.origin()?;
        let (mut url, mut hops, mut asked) = (url.clone(), 0, false);
        loop {
            let ours = url.origin == home;
            let payload = payload.map_or(Payload::None, Payload::Bytes);
            let request = Request { fields: fields.to_vec(), payload, ..Request::new(method, &url) };
            let (head, body) = self.client.http.send(self.signed(request))?;
            match head.status {
                401 if ours && !asked => {
                    asked = true;
                    body.drain();
                    if !self.authorize(&home, &head)? {
                        return Err(self.denied(String::new()));
                    }
                }
                301 | 302 | 303 | 307 | 308 if follow => {
                    hops += 1;
                    let next = self.redirect(&url, head.field("location").unwrap_or_default(), hops)?;
                    body.drain();
                    url = next;
                }
                401 | 403 if ours => return Err(self.denied(explain(body))),
                _ => return Ok((head, body)),
            }
        }
    }

    /// Returns the value of `Authorization` for an address: one of the registry itself, or nothing.
    fn authorization(&self, url: &Url) -> Option<String> {
        let known = self.client.known();
        known.authorizations.get(&(url.origin.clone(), self.scope())).cloned().filter(|_| {
            let first = self.endpoint.origins.first();
            first.is_some_and(|first| *first == url.origin || known.ways.get(first) == Some(&url.origin))
        })
    }

    /// Answers a 401; returns whether there is anything to answer.
    fn authorize(&self, home: &Origin, head: &Head) -> Result<bool> {
        let challenges = challenges(head.fields("www-authenticate"));
        let credential = self.client.credentials.find(&self.endpoint.key);
        let credential =
            credential.map_err(|reason| RegistryError::Credentials { registry: self.endpoint.name.clone(), reason })?;
        let scope = self.scope();
        let http = &self.client.http;
        let value = token::answer(http, home, &self.endpoint.name, &challenges, &scope, credential.as_ref());
        let Some(value) = value.map_err(|error| match error {
            RegistryError::Denied { message, .. } => self.denied(message),
            other => other,
        })?
        else {
            return Ok(false);
        };
        self.client.known().authorizations.insert((home.clone(), scope), value);
        Ok(true)
    }

    fn denied(&self, message: String) -> RegistryError {
        RegistryError::Denied { registry: self.endpoint.name.clone(), repository: self.path.clone(), message }
    }

    /// Adds what proves who we are, where the address is the registry's own.
    pub(super) fn signed<'s>(&self, request: Request<'s>) -> Request<'s> {
        match self.authorization(&request.url) {
            Some(value) => request.field("Authorization", value),
            None => request,
        }
    }

    /// Decides whether a redirect, or the place of an upload, is followed.
    pub(super) fn redirect(&self, from: &Url, location: &str, hops: u32) -> Result<Url> {
        next_hop(from, location, hops)
    }
}

/// Decides whether a redirect is followed, the `hops`-th from where it began.
///
/// # Errors
/// When it is not.
pub(super) fn next_hop(from: &Url, location: &str, hops: u32) -> Result<Url> {
    let refuse = |why| RegistryError::Redirect {
        url: from.to_string(),
        to: location.split('?').next().unwrap_or_default().chars().take(200).collect(),
        why,
    };
    let next = from.join(location).ok_or_else(|| refuse("that is no address"))?;
    if hops > MAX_HOPS {
        return Err(refuse("more than 8 redirects"));
    }
    if from.origin.secure && !next.origin.secure {
        return Err(refuse("it would leave TLS"));
    }
    Ok(next)
}

/// What a registry says about a refusal.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<Reason>,
    /// Token places say it so.
    #[serde(default)]
    details: Option<String>,
}

#[derive(Deserialize)]
struct Reason {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Reads what an answer says about a refusal.
pub(super) fn explain(mut body: Body<'_, '_>) -> String {
    body.document(MAX_EXPLANATION, "the explanation").map_or_else(|_| String::new(), |text| messages(&text))
}

/// Reads the messages of an error document (*distribution-spec "Error Codes"*), fit for a terminal.
pub(super) fn messages(text: &[u8]) -> String {
    let Ok(refusal) = serde_json::from_slice::<Refusal>(text) else { return String::new() };
    let mut said: Vec<String> = refusal
        .errors
        .into_iter()
        .map(|reason| if reason.message.is_empty() { reason.code.to_lowercase() } else { reason.message })
        .chain(refusal.details)
        .collect();
    said.retain(|text| !text.is_empty());
    said.dedup();
    let text: String = said.join("; ").chars().take(400).collect();
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Makes an error of an answer that is no success.
pub(super) fn status_error(head: &Head, url: String, text: &[u8]) -> RegistryError {
    let now = jiff::Timestamp::now().as_second();
    let wait = head.field("retry-after").and_then(|text| retry_after(text, now));
    RegistryError::Status { url, status: head.status, message: messages(text), wait }
}

/// Makes an error of an answer that is no success, with what its body says.
pub(super) fn refused(head: &Head, url: &Url, mut body: Body<'_, '_>) -> RegistryError {
    let text = body.document(MAX_EXPLANATION, "the explanation").unwrap_or_default();
    status_error(head, url.to_string(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_refusals_are_read() {
        for (text, expected) in [
            (
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                "manifest unknown",
            ),
            (r#"{"errors":[{"code":"DENIED"},{"message":"a\u001b[2Jb"}]}"#, "denied; a\u{fffd}[2Jb"),
            (r#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            ("<html>", ""),
            ("[]", ""),
        ] {
            assert_eq!(messages(text.as_bytes()), expected, "{text}");
        }
    }
}
