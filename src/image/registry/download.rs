//! Files by their addresses (`ADD`, `import`, a context): a plain GET by the client that registries are asked with, which
//! proves to nobody who we are.

use super::client::{Client, next_hop, refused};
use super::error::{RegistryError, Result};
use super::http::{Body, Head, Request};
use super::retry::{Rest, rest_of};
use super::url::{Url, names_own};
use crate::base::{Digest, Sha256};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Seek, Write};

/// Bytes read at once.
const CHUNK: usize = 512 << 10;
/// Bytes after which a connection counts as good again.
const PROGRESS: u64 = 1 << 20;
/// A file that changed this shortly before it was served may change again within the same second, which is all that a date
/// tells; seconds.
const SETTLED: i64 = 2;
/// Longest field that is kept to ask with later, bytes.
const MAX_VALIDATOR: usize = 1024;

/// What tells later whether an address still serves the same bytes (*RFC 9110 "Validators"*): strong ones only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub last_modified: Option<String>,
}

/// A file that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Download {
    /// Digest of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// When the server says that it was changed, seconds since 1970.
    pub modified: Option<i64>,
    /// What it can be asked for with later.
    pub validators: Validators,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'w> {
    /// `http://` or `https://`, without user information.
    pub address: &'w str,
    /// What is known from last time: a file that has not changed does not come again.
    pub known: Option<&'w Validators>,
    /// What it must have, where that is known.
    pub expected: Option<&'w Digest>,
    /// Most bytes.
    pub most: u64,
    /// Whether names and redirects may lead to this machine or to its own link, too. An address that says so itself always
    /// may.
    pub own: bool,
}

/// Told the bytes that are here, and all there will be where that is known.
pub type Progress<'p> = &'p mut dyn FnMut(u64, Option<u64>);

/// What is here of a file.
struct Part<'p> {
    to: &'p mut File,
    hash: Sha256,
    /// What the beginning was served with.
    modified: Option<i64>,
    validators: Validators,
    /// Length of the whole, where it is known.
    total: Option<u64>,
}

impl<'a> Client<'a> {
    /// Fetches a file into the empty file `to`, going on where a connection was cut; `None` when it has not changed since
    /// `known`.
    ///
    /// # Errors
    /// When there is none, it is too long or another than expected, the server cannot be asked, or `to` takes no more.
    pub fn download(&self, wanted: &Wanted<'_>, to: &mut File, progress: Progress<'_>) -> Result<Option<Download>> {
        let bad = || RegistryError::Address { address: shown(wanted.address) };
        let url = Url::parse(wanted.address).ok_or_else(bad)?;
        let fenced = !wanted.own && !names_own(&url.origin.host);
        let mut part = Part::new(to);
        let (mut failures, mut mark) = (0, 0);
        loop {
            match self.rest_of_file(&url, wanted, fenced, &mut part, progress) {
                Ok(true) => break,
                Ok(false) => return Ok(None),
                Err(error) if error.is_passing() => {
                    let at = part.hash.length;
                    failures = if at >= mark + PROGRESS { 1 } else { failures + 1 };
                    mark = at;
                    self.rest_after(error, failures)?;
                }
                Err(error) => return Err(error),
            }
        }
        let (size, found) = (part.hash.length, part.hash.finish());
        match wanted.expected {
            Some(expected) if *expected != found => {
                let (what, expected) = (url.to_string(), expected.clone());
                Err(RegistryError::Checksum { what, expected, found })
            }
            _ => Ok(Some(Download { digest: found, size, modified: part.modified, validators: part.validators })),
        }
    }

    /// Asks for what is missing, and reads it up to its end or the next cut; false when nothing has changed.
    fn rest_of_file(
        &self,
        url: &Url,
        wanted: &Wanted<'_>,
        fenced: bool,
        part: &mut Part<'_>,
        progress: Progress<'_>,
    ) -> Result<bool> {
        let at = part.hash.length;
        // Only bytes of the same file go behind those that are here.
        let again = part.validators.etag.clone().or_else(|| part.validators.last_modified.clone()).filter(|_| at > 0);
        let mut fields = vec![("Accept-Encoding", "identity".to_owned())];
        match (&again, wanted.known) {
            (Some(same), _) => fields.extend([("Range", format!("bytes={at}-")), ("If-Range", same.clone())]),
            (None, Some(known)) if at == 0 => {
                fields.extend(known.etag.clone().map(|etag| ("If-None-Match", etag)));
                // With an ETag the date is not looked at (*RFC 9110 "Precedence of Preconditions"*).
                fields.extend(known.last_modified.clone().map(|date| ("If-Modified-Since", date)));
            }
            _ => {}
        }
        let asks_if_changed = again.is_none() && fields.len() > 1;
        let (head, mut body) = self.follow(url, &fields, fenced)?;
        match head.status {
            200 | 206 => {}
            304 if asks_if_changed => return Ok(false),
            _ => return Err(refused(&head, url, body)),
        }
        let malformed = |what| RegistryError::Malformed { url: url.to_string(), what };
        let size = part.total.unwrap_or(u64::MAX);
        match (head.status, again.is_some()) {
            (206, true) => match rest_of(at, size, 206, head.field("content-range")).map_err(malformed)? {
                Rest::Here => {}
                Rest::Skip(_) => return Err(malformed("the range of the answer is malformed")),
            },
            (206, false) => return Err(malformed("the answer is a range that was not asked for")),
            _ => part.begin(&head, body.length())?,
        }
        let too_long = || RegistryError::TooLong { what: url.to_string(), most: wanted.most };
        if part.total.is_some_and(|total| total > wanted.most) {
            return Err(too_long());
        }
        self.read(&mut body, url, part, wanted.most, progress)
    }

    fn read(
        &self,
        body: &mut Body<'_, '_>,
        url: &Url,
        part: &mut Part<'_>,
        most: u64,
        progress: Progress<'_>,
    ) -> Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = body.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if part.hash.length.saturating_add(count as u64) > most {
                return Err(RegistryError::TooLong { what: url.to_string(), most });
            }
            let failed = |source| RegistryError::Io { action: "write the file that is fetched", source };
            part.to.write_all(&buffer[..count]).map_err(failed)?;
            part.hash.update(&buffer[..count]);
            progress(part.hash.length, part.total);
        }
        match part.total {
            Some(total) if part.hash.length != total => {
                let source = io::ErrorKind::UnexpectedEof.into();
                Err(RegistryError::Transfer { url: url.to_string(), source })
            }
            _ => Ok(true),
        }
    }

    /// Makes the exchange, following redirects.
    fn follow<'h>(
        &'h self,
        url: &Url,
        fields: &[(&'static str, String)],
        fenced: bool,
    ) -> Result<(Head, Body<'h, 'a>)> {
        let (mut url, mut hops) = (url.clone(), 0);
        loop {
            if fenced && names_own(&url.origin.host) {
                return Err(RegistryError::Own { host: url.origin.host });
            }
            let request = Request { fields: fields.to_vec(), fenced, ..Request::new("GET", &url) };
            let (head, body) = self.http.send(request)?;
            if !matches!(head.status, 301 | 302 | 303 | 307 | 308) {
                return Ok((head, body));
            }
            hops += 1;
            let next = next_hop(&url, head.field("location").unwrap_or_default(), hops)?;
            body.drain();
            url = next;
        }
    }
}

impl<'p> Part<'p> {
    fn new(to: &'p mut File) -> Self {
        Self { to, hash: Sha256::new(), modified: None, validators: Validators::default(), total: None }
    }

    /// Begins with the whole file, whatever was here of it.
    fn begin(&mut self, head: &Head, length: Option<u64>) -> Result<()> {
        let failed = |source| RegistryError::Io { action: "write the file that is fetched", source };
        self.to.rewind().and_then(|()| self.to.set_len(0)).map_err(failed)?;
        self.hash = Sha256::new();
        self.total = length;
        self.modified = head.field("last-modified").and_then(seconds);
        self.validators = validators(head.field("etag"), head.field("last-modified"), head.field("date"));
        Ok(())
    }
}

/// Keeps the validators that tell every change: no weak tags, and no date of a moment ago.
fn validators(etag: Option<&str>, modified: Option<&str>, date: Option<&str>) -> Validators {
    let strong = |tag: &&str| tag.starts_with('"') && tag.len() <= MAX_VALIDATOR;
    let settled = || Some(seconds(date?)? - seconds(modified?)? >= SETTLED);
    let last_modified = modified.filter(|text| text.len() <= MAX_VALIDATOR && settled() == Some(true));
    Validators { etag: etag.filter(strong).map(str::to_owned), last_modified: last_modified.map(str::to_owned) }
}

/// Reads a date of HTTP: seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second())
}

/// An address without what may be secret in it, for messages.
fn shown(address: &str) -> String {
    let bare = address.split(['?', '#']).next().unwrap_or_default();
    match (bare.split_once("://"), bare.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://...@{rest}"),
        _ => bare.to_owned(),
    }
    .chars()
    .map(|c| if c.is_control() { '\u{fffd}' } else { c })
    .take(300)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_every_change_is_kept() {
        let date = |second: u32| format!("Sun, 06 Nov 1994 08:49:{second:02} GMT");
        let (then, now) = (date(10), date(12));
        let all = validators(Some("\"a\""), Some(&then), Some(&now));
        assert_eq!((all.etag.as_deref(), all.last_modified.as_deref()), (Some("\"a\""), Some(then.as_str())));
        for (etag, modified, date) in [
            (Some("W/\"a\""), Some(then.clone()), Some(date(11))),
            (None, Some(then.clone()), None),
            (Some("a"), Some("yesterday".to_owned()), Some(now.clone())),
        ] {
            assert_eq!(validators(etag, modified.as_deref(), date.as_deref()), Validators::default(), "{etag:?}");
        }
    }

    #[test]
    fn addresses_are_shown_without_secrets() {
        for (address, expected) in [
            ("https://a/b?token=x", "https://a/b"),
            ("https://u:p@a/b#c", "https://...@a/b"),
            ("ftp://a\u{1b}[2J", "ftp://a\u{fffd}[2J"),
        ] {
            assert_eq!(shown(address), expected);
        }
    }
}
