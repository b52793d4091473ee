//! HTTP/1.1 over own connections, one exchange at a time and without redirects: what a registry client needs and no more.
//!
//! Synchronous, so that nothing of it lives in the processes that make sandboxes. Heads are bounded, lengths are checked,
//! and a body is read by whoever asked for it, at its own pace.

mod body;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod head;
mod proxy;
mod resolve;
mod stream;
mod wait;

pub(super) use body::Body;
pub(super) use head::Head;
pub use proxy::Proxies;
pub(super) use wait::{Halt, rest};

use super::error::{RegistryError, Result};
use super::tls::Tls;
use super::url::{Origin, Url};
use body::Connection;
use proxy::Proxy;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use stream::{Broken, Stream};

/// Unused connections that are kept.
const KEPT: usize = 8;
/// How long an unused connection is kept.
const KEEP: Duration = Duration::from_secs(20);
/// How we call ourselves.
const AGENT: &str = concat!("bulkhead/", env!("CARGO_PKG_VERSION"));

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the next bytes of a body; what brings less than 4 KiB in that time counts as stalled.
    pub idle: Duration,
    /// For a whole document (manifest, config, token), and for the head of any answer.
    pub document: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { connect: seconds(15), idle: seconds(30), document: seconds(60) }
    }
}

/// Writes the body of a request.
pub(super) type Source<'s> = &'s mut dyn FnMut(&mut dyn Write) -> io::Result<()>;

/// What a request carries.
pub(super) enum Payload<'s> {
    /// Nothing.
    None,
    /// Bytes.
    Bytes(&'s [u8]),
    /// Whatever a function writes, in pieces (*RFC 9112 "Chunked Transfer Coding"*).
    Pieces(Source<'s>),
}

/// A request.
pub(super) struct Request<'s> {
    /// Method.
    pub(super) method: &'static str,
    /// Where to.
    pub(super) url: Url,
    /// Fields besides `Host`, `User-Agent` and the body's.
    pub(super) fields: Vec<(&'static str, String)>,
    /// Body.
    pub(super) payload: Payload<'s>,
    /// The host's name may not lead to this machine, nor to its own link.
    pub(super) fenced: bool,
}

impl Request<'_> {
    /// Makes a request without a body.
    pub(super) fn new(method: &'static str, url: &Url) -> Self {
        Self { method, url: url.clone(), fields: Vec::new(), payload: Payload::None, fenced: false }
    }

    /// Adds a field.
    pub(super) fn field(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// Returns its head as it is sent, to a proxy or to the host itself; `None` when a field cannot stand in one.
    fn head(&self, proxy: Option<&Proxy>) -> Option<Vec<u8>> {
        // *RFC 9112 "absolute-form"*; what goes through TLS is no business of the proxy's.
        let proxy = proxy.filter(|_| !self.url.origin.secure);
        let place = proxy.map(|_| self.url.origin.to_string()).unwrap_or_default();
        let mut text = format!("{} {place}{} HTTP/1.1\r\n", self.method, self.url.target);
        if let Some(value) = proxy.and_then(|proxy| proxy.authorization.as_ref()) {
            text.push_str(&format!("Proxy-Authorization: {value}\r\n"));
        }
        text.push_str(&format!("Host: {}\r\nUser-Agent: {AGENT}\r\n", self.url.origin.authority()));
        for (name, value) in &self.fields {
            if value.chars().any(char::is_control) {
                return None;
            }
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.payload {
            Payload::None if matches!(self.method, "POST" | "PUT" | "PATCH") => text.push_str("Content-Length: 0\r\n"),
            Payload::None => {}
            Payload::Bytes(bytes) => text.push_str(&format!("Content-Length: {}\r\n", bytes.len())),
            Payload::Pieces(_) => text.push_str("Transfer-Encoding: chunked\r\n"),
        }
        text.push_str("\r\n");
        Some(text.into_bytes())
    }
}

/// Makes exchanges and keeps connections for the next one.
pub(super) struct Http<'a> {
    tls: Tls,
    proxies: Proxies,
    pub(super) deadlines: Deadlines,
    pub(super) halt: Halt<'a>,
    unused: Mutex<Vec<(Origin, Connection<'a>, Instant)>>,
}

impl<'a> Http<'a> {
    /// Makes a client without connections.
    pub(super) fn new(tls: Tls, proxies: Proxies, deadlines: Deadlines, halt: Halt<'a>) -> Self {
        Self { tls, proxies, deadlines, halt, unused: Mutex::default() }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// When no connection can be made, it breaks or is late, the answer is malformed, or the caller wants to stop.
    pub(super) fn send(&self, mut request: Request<'_>) -> Result<(Head, Body<'_, 'a>)> {
        let url = request.url.to_string();
        let head = request.head(self.proxies.to(&request.url.origin));
        let head = head.ok_or(RegistryError::Malformed { url, what: "a field cannot be sent" })?;
        // One that was kept may have been closed meanwhile: what can be said again is said again on a new one.
        let repeatable = !matches!(request.payload, Payload::Pieces(_));
        while let Some(mut kept) = repeatable.then(|| self.kept(&request.url.origin)).flatten() {
            match self.exchange(&mut kept, &head, &mut request) {
                Err(RegistryError::Transfer { .. }) => {}
                Err(error) => return Err(error),
                Ok(answer) => return self.answer(answer, kept, &request),
            }
        }
        let mut connection = self.connection(&request.url.origin, request.fenced)?;
        let answer = self.exchange(&mut connection, &head, &mut request)?;
        self.answer(answer, connection, &request)
    }

    fn answer<'h>(
        &'h self,
        head: Head,
        connection: Connection<'a>,
        request: &Request<'_>,
    ) -> Result<(Head, Body<'h, 'a>)> {
        let url = request.url.to_string();
        let framing =
            head.framing(request.method).map_err(|what| RegistryError::Malformed { url: url.clone(), what })?;
        let origin = head.keep.then(|| request.url.origin.clone());
        Ok((head, Body::new(self, connection, origin, framing, url)))
    }

    /// Says a request on a connection and hears the head of the answer.
    fn exchange(&self, connection: &mut Connection<'a>, head: &[u8], request: &mut Request<'_>) -> Result<Head> {
        let (url, idle) = (request.url.to_string(), self.deadlines.idle);
        let sent = say(&mut connection.stream, head, &mut request.payload, idle);
        // A server that refuses a body may answer and close before it has all of it.
        let early = matches!(&sent, Err(Broken::Io(_)));
        if let (Err(broken), false) = (sent, early) {
            return Err(self.failed(broken, &url, "the request was not taken", idle));
        }
        let limit = self.deadlines.document;
        let until = Instant::now() + limit;
        let answer = connection.head(until).map_err(|broken| match broken {
            body::Fault::Broken(broken) => self.failed(broken, &url, "no answer came", limit),
            body::Fault::Malformed(what) => RegistryError::Malformed { url: url.clone(), what },
        })?;
        // What of the body was not taken would be read as the next request.
        Ok(if early { answer.last() } else { answer })
    }

    /// Makes an error of what broke.
    fn failed(&self, broken: Broken, url: &str, what: &'static str, after: Duration) -> RegistryError {
        match broken {
            Broken::Interrupted => RegistryError::Interrupted,
            Broken::Late => RegistryError::TimedOut { url: url.to_owned(), what, after },
            Broken::Io(source) => RegistryError::Transfer { url: url.to_owned(), source },
            Broken::Source(source) => RegistryError::Io { action: "make what is to be sent", source },
        }
    }

    fn connection(&self, origin: &Origin, fenced: bool) -> Result<Connection<'a>> {
        let limit = self.deadlines.connect;
        let proxy = self.proxies.to(origin);
        // Who is behind a proxy is the proxy's business.
        let stream = match proxy {
            Some(proxy) => Stream::connect(&proxy.origin, limit, false, &self.halt)?,
            None => Stream::connect(origin, limit, fenced, &self.halt)?,
        };
        if !origin.secure {
            return Ok(Connection::new(stream));
        }
        let stream = match proxy {
            Some(proxy) => self.tunnel(stream, proxy, origin)?,
            None => stream,
        };
        Ok(Connection::new(stream.secure(origin, self.tls.config(origin)?, limit)?))
    }

    /// Has a proxy pass a connection through to a host (*RFC 9110 "CONNECT"*).
    fn tunnel(&self, stream: Stream<'a>, proxy: &Proxy, to: &Origin) -> Result<Stream<'a>> {
        let place = if to.port == 443 { format!("{}:443", to.authority()) } else { to.authority() };
        let authorization = proxy.authorization.as_ref();
        let authorization = authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
        let text = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{authorization}\r\n");
        let (url, limit) = (format!("the proxy {}", proxy.origin), self.deadlines.connect);
        let mut connection = Connection::new(stream);
        let told = connection.stream.write_all(text.as_bytes(), limit).map_err(body::Fault::Broken);
        let head = told.and_then(|()| connection.head(Instant::now() + limit)).map_err(|fault| match fault {
            body::Fault::Broken(broken) => self.failed(broken, &url, "no answer came", limit),
            body::Fault::Malformed(what) => RegistryError::Malformed { url: url.clone(), what },
        })?;
        match head.status {
            200..300 => Ok(connection.stream),
            status => Err(RegistryError::Status { url, status, message: String::new(), wait: None }),
        }
    }

    fn kept(&self, origin: &Origin) -> Option<Connection<'a>> {
        let mut unused = self.unused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        unused.retain(|(_, connection, since)| since.elapsed() < KEEP && !connection.stream.is_stale());
        let at = unused.iter().position(|(of, _, _)| of == origin)?;
        Some(unused.swap_remove(at).1)
    }

    /// Keeps a connection for the next request.
    fn keep(&self, origin: Origin, connection: Connection<'a>) {
        let mut unused = self.unused.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if unused.len() < KEPT {
            unused.push((origin, connection, Instant::now()));
        }
    }
}

/// Sends a request.
fn say(stream: &mut Stream<'_>, head: &[u8], payload: &mut Payload<'_>, idle: Duration) -> Result<(), Broken> {
    stream.write_all(head, idle)?;
    match payload {
        Payload::None => Ok(()),
        Payload::Bytes(bytes) => stream.write_all(bytes, idle),
        Payload::Pieces(write) => {
            let mut pieces = Pieces { stream, idle, broken: None };
            let written = write(&mut pieces);
            if let Some(broken) = pieces.broken {
                return Err(broken);
            }
            written.map_err(Broken::Source)?;
            stream.write_all(b"0\r\n\r\n", idle)
        }
    }
}

/// Writes pieces of a chunked body.
struct Pieces<'p, 'a> {
    stream: &'p mut Stream<'a>,
    idle: Duration,
    broken: Option<Broken>,
}

impl Write for Pieces<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if self.stream.is_over() {
            self.broken = Some(Broken::Interrupted);
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut send = |bytes: &[u8]| self.stream.write_all(bytes, self.idle);
        let sent =
            send(format!("{:x}\r\n", bytes.len()).as_bytes()).and_then(|()| send(bytes)).and_then(|()| send(b"\r\n"));
        sent.map(|()| bytes.len()).map_err(|broken| {
            self.broken = Some(broken);
            io::ErrorKind::BrokenPipe.into()
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
