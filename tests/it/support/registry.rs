//! A registry in a thread of the test, which serves images as it should, or misbehaves as the test wants it to.

use super::World;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }
}

/// What a registry does with a request.
pub(crate) enum Deed {
    /// It serves what is asked for, if it has it.
    Serve,
    /// It answers so: status, fields, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// It writes these bytes, rests, writes the next, and closes the connection.
    Raw(Vec<(Vec<u8>, Duration)>),
    /// It writes these bytes for ever, one piece after the other with a rest between.
    Endless(Vec<u8>, Vec<u8>, Duration),
}

/// Documents and blobs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// By `repository:tag` and `repository@digest`.
    pub(crate) manifests: HashMap<String, (String, Vec<u8>)>,
    /// By digest.
    pub(crate) blobs: HashMap<String, Vec<u8>>,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packed {
    Gzip,
    Zstd,
    Plain,
}

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String =
        ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Makes a tar of files.
pub(crate) fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, path, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn pack(tar: &[u8], how: Packed) -> Vec<u8> {
    match how {
        Packed::Plain => tar.to_vec(),
        Packed::Zstd => zstd::encode_all(tar, 1).unwrap(),
        Packed::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| step()).collect();
    bytes.truncate(length);
    bytes
}

impl Content {
    /// Adds an image of layers under a name; returns the digest of its manifest.
    pub(crate) fn image(&mut self, name: &str, layers: &[Vec<u8>], how: Packed) -> String {
        self.image_for(name, layers, how, "amd64", &|_| {})
    }

    /// Adds an image for a machine, its config changed before it is written.
    pub(crate) fn image_for(
        &mut self,
        name: &str,
        layers: &[Vec<u8>],
        how: Packed,
        machine: &str,
        change: &dyn Fn(&mut serde_json::Value),
    ) -> String {
        let mut config = serde_json::json!({
            "architecture": machine,
            "os": "linux",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|tar| digest(tar)).collect::<Vec<_>>()},
        });
        change(&mut config);
        let config = serde_json::to_vec(&config).unwrap();
        let mut blob = |kind: &str, bytes: Vec<u8>| {
            let described = serde_json::json!({"mediaType": kind, "digest": digest(&bytes), "size": bytes.len()});
            self.blobs.insert(digest(&bytes), bytes);
            described
        };
        let suffix = match how {
            Packed::Gzip => "+gzip",
            Packed::Zstd => "+zstd",
            Packed::Plain => "",
        };
        let kind = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": blob("application/vnd.oci.image.config.v1+json", config),
            "layers": layers.iter().map(|tar| blob(&kind, pack(tar, how))).collect::<Vec<_>>(),
        });
        self.manifest(name, MANIFEST, serde_json::to_vec(&manifest).unwrap())
    }

    /// Adds an index of manifests that were added before.
    pub(crate) fn index(&mut self, name: &str, manifests: &[(&str, &str)]) -> String {
        let repository = name.rsplit_once(':').unwrap().0.to_owned();
        let entry = |(digest, machine): &(&str, &str)| {
            let size = self.manifests[&format!("{repository}@{digest}")].1.len();
            let platform = serde_json::json!({"os": "linux", "architecture": machine});
            serde_json::json!({"mediaType": MANIFEST, "digest": digest, "size": size, "platform": platform})
        };
        let manifests: Vec<_> = manifests.iter().map(entry).collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.manifest(name, INDEX, serde_json::to_vec(&index).unwrap())
    }

    /// Adds a document under a name and its digest.
    pub(crate) fn manifest(&mut self, name: &str, kind: &str, bytes: Vec<u8>) -> String {
        let digest = digest(&bytes);
        let repository = name.rsplit_once(':').unwrap().0;
        self.manifests.insert(format!("{repository}@{digest}"), (kind.to_owned(), bytes.clone()));
        self.manifests.insert(name.to_owned(), (kind.to_owned(), bytes));
        digest
    }
}

type Manner = dyn Fn(&Asked, usize) -> Deed + Send + Sync;

/// A running registry; it ends with this value.
pub(crate) struct Registry {
    /// `127.0.0.1:PORT`, a loopback address of the world's network namespace.
    pub(crate) address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Registry {
    /// Starts one that behaves.
    pub(crate) fn serve(world: &World, content: Content) -> Self {
        Self::misbehave(world, content, |_, _| Deed::Serve)
    }

    /// Starts one that does with each request what `manner` says; the number is how often the same was asked before.
    pub(crate) fn misbehave(
        world: &World,
        content: Content,
        manner: impl Fn(&Asked, usize) -> Deed + Send + Sync + 'static,
    ) -> Self {
        Self::misbehave_at(world, "127.0.0.1:0", content, manner)
    }

    /// As [`Self::misbehave`], at an address of the world's network namespace.
    pub(crate) fn misbehave_at(
        world: &World,
        address: &str,
        content: Content,
        manner: impl Fn(&Asked, usize) -> Deed + Send + Sync + 'static,
    ) -> Self {
        let listener = world.within(|| TcpListener::bind(address).expect("listen"));
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("an address").to_string();
        let (asked, ends) = (Arc::<Mutex<Vec<Asked>>>::default(), Arc::<AtomicBool>::default());
        let (content, manner): (Arc<Content>, Arc<Manner>) = (Arc::new(content), Arc::new(manner));
        let (log, stop) = (Arc::clone(&asked), Arc::clone(&ends));
        let accept = move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok((stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(2));
                    continue;
                };
                let (content, manner) = (Arc::clone(&content), Arc::clone(&manner));
                let (log, stop) = (Arc::clone(&log), Arc::clone(&stop));
                let talk = move || drop(converse(&stream, &content, &*manner, &log, &stop));
                std::thread::Builder::new().spawn(talk).expect("start a thread");
            }
        };
        let thread = std::thread::Builder::new().spawn(accept).expect("start a thread");
        Self { address, asked, ends, thread: Some(thread) }
    }

    /// Everything asked for so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The requests for blobs so far.
    pub(crate) fn blobs(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.path.contains("/blobs/sha256:")).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers the requests of one connection.
fn converse(
    stream: &TcpStream,
    content: &Content,
    manner: &Manner,
    log: &Mutex<Vec<Asked>>,
    ends: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut first = [0];
    // Who begins with TLS is hung up on.
    if stream.peek(&mut first)? == 0 || first[0] == 0x16 {
        return Ok(());
    }
    let mut reader = BufReader::new(stream);
    let mut out = stream;
    while let Some(asked) = read(&mut reader)? {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(asked.clone());
            log.iter().filter(|one| one.method == asked.method && one.path == asked.path).count() - 1
        };
        match manner(&asked, before) {
            Deed::Serve => {
                let (status, fields, body) = serve(&asked, content);
                answer(&mut out, &asked, status, &fields, &body)?;
            }
            Deed::Answer(status, fields, body) => answer(&mut out, &asked, status, &fields, &body)?,
            Deed::Raw(pieces) => {
                for (bytes, rest) in pieces {
                    out.write_all(&bytes)?;
                    pause(rest, ends);
                }
                return stream.shutdown(std::net::Shutdown::Both);
            }
            Deed::Endless(head, piece, rest) => {
                out.write_all(&head)?;
                while !ends.load(Ordering::Relaxed) {
                    out.write_all(&piece)?;
                    pause(rest, ends);
                }
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Rests, but not beyond the end of the registry.
fn pause(rest: Duration, ends: &AtomicBool) {
    let until = std::time::Instant::now() + rest;
    while std::time::Instant::now() < until && !ends.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5).min(rest));
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Asked>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut fields = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    if fields.iter().any(|(name, value)| name == "transfer-encoding" && value == "chunked") {
        let body = chunked(reader)?;
        return Ok(Some(Asked { method, path, fields, body }));
    }
    let length = fields.iter().find(|(name, _)| name == "content-length").and_then(|(_, value)| value.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut body)?;
    Ok(Some(Asked { method, path, fields, body }))
}

/// Reads a body in chunks (*RFC 9112 "Chunked Transfer Coding"*).
fn chunked(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let length = usize::from_str_radix(line.trim_end(), 16).map_err(std::io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        reader.read_exact(&mut chunk)?;
        body.extend_from_slice(&chunk[..length]);
        if length == 0 {
            return Ok(body);
        }
    }
}

/// The answer of one that behaves.
pub(crate) fn serve(asked: &Asked, content: &Content) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
    let path = asked.path.split('?').next().unwrap_or_default();
    if path == "/v2/" {
        return (200, Vec::new(), b"{}".to_vec());
    }
    let rest = path.strip_prefix("/v2/").unwrap_or_default();
    if let Some((repository, name)) = rest.split_once("/manifests/") {
        let separator = if name.contains(':') { '@' } else { ':' };
        if let Some((kind, bytes)) = content.manifests.get(&format!("{repository}{separator}{name}")) {
            let fields = vec![("Content-Type", kind.clone()), ("Docker-Content-Digest", digest(bytes))];
            return (200, fields, bytes.clone());
        }
    }
    if let Some((_, name)) = rest.split_once("/blobs/")
        && let Some(bytes) = content.blobs.get(name)
    {
        let range = asked.field("range").and_then(|range| range.strip_prefix("bytes="));
        let from = range.and_then(|range| range.trim_end_matches('-').parse::<usize>().ok());
        return match from.filter(|from| *from < bytes.len()) {
            Some(from) => {
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                (206, vec![("Content-Range", range)], bytes[from..].to_vec())
            }
            None => (200, Vec::new(), bytes.clone()),
        };
    }
    (404, Vec::new(), br#"{"errors":[{"code":"NAME_UNKNOWN","message":"not here"}]}"#.to_vec())
}

fn answer(
    out: &mut &TcpStream,
    asked: &Asked,
    status: u16,
    fields: &[(&str, String)],
    body: &[u8],
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Answer\r\n");
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !fields.iter().any(|(name, _)| *name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    out.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" { Ok(()) } else { out.write_all(body) }
}
