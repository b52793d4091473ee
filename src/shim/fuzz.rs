//! What comes to a shim from outside, as functions of bytes; see `fuzz/` and `crate::fuzz_tests`.

use super::codec::{Received, Receiver, socket_pair};
use super::log::{Header, LogWriter, segment_name};
use super::plan::LogPlan;
use super::protocol::{Reply, Request};
use super::{LogOptions, LogReader, LogStream, ShimPlan, State};
use crate::base::Timestamp;
use crate::store::fuzz::Scratch;
use rustix::fd::AsFd as _;
use serde::{Serialize, de::DeserializeOwned};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

/// A DNS question that is answered with a failure (*RFC 1035, 4.1*): the answer has the question's number and its first
/// question, and nothing else.
pub fn dns(bytes: &[u8]) {
    let Some(answer) = super::dns::server_failure(bytes) else { return };
    assert!(answer.len() <= bytes.len() && answer[..2] == bytes[..2], "it repeats no more than the question");
    assert!(answer[2] & 0x80 != 0 && answer[3] & 0x0f == 2, "it is an answer, and a failure");
    assert_eq!((answer[2] ^ bytes[2]) & 0x79, 0, "kind of question and recursion are the question's");
    assert_eq!(answer[6..12], [0; 6], "it has no records");
    let asked = bytes[4..6] != [0, 0];
    assert_eq!(answer[4..6], [0, u8::from(asked)]);
    let mut at = 12;
    if asked {
        assert_eq!(answer[12..], bytes[12..answer.len()]);
        while answer[at] != 0 {
            at += 1 + usize::from(answer[at]);
        }
        at += 5;
    }
    assert_eq!(at, answer.len(), "it ends with the question");
    assert_eq!(super::dns::server_failure(&answer), Some(answer), "an answer of an answer is the same");
}

/// Messages and records: what is understood is spelled back. Frames: told in whatever pieces they come.
pub fn messages(bytes: &[u8]) {
    fn round<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
        let Ok(first) = serde_json::from_slice::<T>(bytes) else { return };
        let written = serde_json::to_vec(&first).expect("what was read can be written");
        let second: T = serde_json::from_slice(&written).expect("what was written can be read");
        assert_eq!(serde_json::to_vec(&second).expect("it was written before"), written, "writing settles");
    }
    round::<Request>(bytes);
    round::<Reply>(bytes);
    round::<ShimPlan>(bytes);
    round::<State>(bytes);
    if bytes.len() < 4096 {
        frames(bytes);
    }
}

/// Each line is a frame's text; the last line says in what pieces they come.
fn frames(bytes: &[u8]) {
    let mut texts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let pieces = texts.pop().unwrap_or_default();
    let mut stream = Vec::new();
    for text in &texts {
        stream.extend_from_slice(&(text.len() as u32).to_le_bytes());
        stream.extend_from_slice(text);
    }
    let mut expected = texts.iter().map(|text| serde_json::from_slice::<serde_json::Value>(text));
    let (ours, theirs) = socket_pair().expect("a pair of sockets");
    let mut receiver = Receiver::default();
    let mut steps = pieces.iter().map(|step| 1 + usize::from(*step)).chain(std::iter::repeat(64));
    let mut rest = &stream[..];
    while !rest.is_empty() {
        let (now, later) = rest.split_at(steps.next().unwrap_or(1).min(rest.len()));
        assert_eq!(rustix::io::write(&ours, now), Ok(now.len()));
        rest = later;
        loop {
            match receiver.receive::<serde_json::Value>(theirs.as_fd()) {
                Ok(Received::Message(message, descriptors)) => {
                    assert!(descriptors.is_empty());
                    assert_eq!(Some(message), expected.next().and_then(Result::ok), "another message than was sent");
                }
                Ok(Received::Pending) => break,
                Ok(Received::Closed) => panic!("nobody closed"),
                Err(_) => return assert!(matches!(expected.next(), Some(Err(_))), "a good message was refused"),
            }
        }
    }
    assert!(expected.next().is_none(), "a message was not told");
}

/// What a log says: stream, time and bytes of each piece, and whether it begins a line.
type Pieces = Vec<(LogStream, Timestamp, Vec<u8>, bool)>;

fn pieces(dir: &Path, options: LogOptions) -> Pieces {
    let mut reader = LogReader::open(dir, options).expect("open a log of memory");
    let mut pieces = Vec::new();
    while let Some(entry) = reader.next().expect("read from memory") {
        pieces.push((entry.stream, entry.timestamp, entry.bytes.to_vec(), entry.starts_line));
    }
    pieces
}

/// The number of lines of both streams; one that has no end yet is a line too.
fn lines(pieces: &Pieces) -> usize {
    let open = |stream| pieces.iter().rfind(|piece| piece.0 == stream).is_some_and(|piece| !piece.2.ends_with(b"\n"));
    let whole = pieces.iter().filter(|piece| piece.2.ends_with(b"\n")).count();
    whole + [LogStream::Stdout, LogStream::Stderr].into_iter().filter(|stream| open(*stream)).count()
}

/// The records of a segment, read in the plainest way: headers one after another until one is none.
fn plainly(mut segment: &[u8]) -> Pieces {
    let mut pieces = Pieces::new();
    while let Some((header, rest)) = segment.split_first_chunk().and_then(|(h, rest)| Some((Header::decode(h)?, rest)))
    {
        let Some((payload, rest)) = rest.split_at_checked(header.length) else { break };
        for line in payload.split_inclusive(|byte| *byte == b'\n') {
            pieces.push((header.stream, header.timestamp, line.to_vec(), false));
        }
        segment = rest;
    }
    pieces
}

/// Puts the check byte of every record header right, so that a search gets past it.
fn repair(segment: &[u8]) -> Vec<u8> {
    let mut repaired = segment.to_vec();
    let mut at = 0;
    while let Some(header) = repaired.get_mut(at..at + 16) {
        header[..2].copy_from_slice(&[0xB1, 0x6B]);
        header[2] = 1 + header[2] % 2;
        header[6..8].fill(0);
        header[3] = 0;
        header[3] = header.iter().fold(0, |sum, byte| sum ^ byte);
        at += 16 + usize::from(u16::from_le_bytes([header[4], header[5]]));
    }
    repaired
}

/// Segments of a log. The first byte says how it is read; where its lowest bit is set the segments' headers are put right.
/// Then a byte for the length of the first segment, in sixteenths of the rest. All that parses is told, in order; `tail` is
/// its end, with so many lines; times bound what is told; and what a writer keeps when it opens the log is what was told.
pub fn log(bytes: &[u8]) {
    let [choice, length, rest @ ..] = bytes else { return };
    let (first, second) = rest.split_at(rest.len() * usize::from(length % 17) / 16);
    let segments = [first, second].map(|segment| if choice & 1 == 1 { repair(segment) } else { segment.to_vec() });
    let scratch = Scratch::make();
    for (number, segment) in (1..).zip(&segments) {
        let mut file = File::create(scratch.path().join(segment_name(number))).expect("make a segment");
        file.write_all(segment).expect("write a segment");
    }
    let all = pieces(scratch.path(), LogOptions::default());
    let mut plain = segments.iter().flat_map(|segment| plainly(segment)).collect::<Pieces>();
    let mut open = [true; 3];
    for piece in &mut plain {
        let stream = usize::from(piece.0.number());
        piece.3 = std::mem::replace(&mut open[stream], piece.2.ends_with(b"\n"));
    }
    assert!(all == plain, "all that parses is told, and nothing else");
    let wanted = usize::from(choice >> 1) % 20;
    let tail = pieces(scratch.path(), LogOptions { tail: Some(wanted as u64), ..LogOptions::default() });
    assert!(tail.len() <= all.len());
    let end = &all[all.len() - tail.len()..];
    let bare = |pieces: &[(LogStream, Timestamp, Vec<u8>, bool)]| {
        pieces.iter().map(|piece| (piece.0, piece.1, piece.2.clone())).collect::<Vec<_>>()
    };
    assert!(bare(&tail) == bare(end), "the tail is the end of the log");
    assert_eq!(lines(&tail), wanted.min(lines(&all)), "the tail has so many lines");
    if let Some(middle) = all.get(all.len() / 2).map(|piece| piece.1) {
        let since = pieces(scratch.path(), LogOptions { since: Some(middle), ..LogOptions::default() });
        let late: Pieces = all.iter().filter(|piece| piece.1 >= middle).cloned().collect();
        assert!(since == late, "since tells what is not older");
        let until = pieces(scratch.path(), LogOptions { until: Some(middle), ..LogOptions::default() });
        let early: Pieces = all.iter().take_while(|piece| piece.1 <= middle).cloned().collect();
        assert!(until == early, "until ends before the first that is younger");
    }
    let plan = LogPlan { dir: scratch.path().to_owned(), max_size: 1 << 20, max_files: 5 };
    let mut writer = LogWriter::open(&plan).expect("open the log for writing");
    writer.append(LogStream::Stdout, Timestamp(1), b"more\n").expect("write to memory");
    let after = pieces(scratch.path(), LogOptions::default());
    assert!(bare(&after[..after.len() - 1]) == bare(&all), "the writer keeps what was told");
    assert_eq!(after.last().map(|piece| &piece.2[..]), Some(&b"more\n"[..]));
}
