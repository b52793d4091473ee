//! The tar format: headers, a streaming reader for layers, and a deterministic writer.
//!
//! Our own, because layers must be put together again byte by byte: the reader tells which bytes of the stream are file
//! content and hands over all others. Formats: v7, ustar, PAX (with GNU sparse 0.0, 0.1 and 1.0), GNU (long names, base-256
//! numbers, old sparse). Knows no file system.

mod extensions;
mod header;
mod pax;
mod reader;
#[cfg(any(test, fuzzing))]
mod repair;
mod sparse;
mod writer;

pub(super) use header::{Kind, is_tar};
pub(super) use reader::{Entry, Reader, Sink, TarError};
#[cfg(any(test, fuzzing))]
pub(super) use repair::repair;
pub(super) use writer::{WriteEntry, Writer};
