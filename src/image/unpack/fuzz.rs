//! The unpacking process's work and report, as functions of bytes; see `crate::image::fuzz`.

use super::extract::Extractor;
use super::{Limits, Report};
use crate::base::Digest;
use crate::image::split::assemble;
use crate::image::tar::{Kind, WriteEntry, Writer, repair};
use crate::image::tree;
use crate::store::fuzz::Scratch;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, memfd_create, openat};
use std::fs::{File, create_dir, read, read_dir, remove_file};
use std::io::{Seek as _, Write as _};
use std::os::fd::AsFd as _;

/// A report of the unpacking process: what is understood is spelled back.
pub fn report(bytes: &[u8]) {
    if let Ok(Some(report)) = Report::read(bytes) {
        let again = Report::read(&report.encode()[..]).ok().flatten();
        assert_eq!(again, Some(report), "what was understood is spelled back");
    }
}

/// A layer, unpacked into a directory: nothing beside the directory is touched, and where the report says so, the split
/// form gives the archive back byte for byte.
///
/// The bytes are an archive (its checksums are put right), or a line for each entry: a letter for its kind (`f` file, `h`
/// hard link, `l` symbolic link, `d` directory, `p` pipe, `n` node), its path, a tab, and its target or content.
pub fn unpack(bytes: &[u8]) {
    let archive = if bytes.get(257..262) == Some(b"ustar") { repair(bytes) } else { written(bytes) };
    let scratch = Scratch::make();
    let (inside, beside) = (scratch.path().join("tree"), scratch.path().join("beside"));
    create_dir(&inside).expect("make the tree");
    File::create(&beside).and_then(|mut file| file.write_all(b"mine")).expect("make the file beside it");
    let root = openat(CWD, &inside, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let root = root.expect("open the tree");
    let split = File::from(memfd_create("split", MemfdFlags::CLOEXEC).expect("memory for the split form"));
    let limits = Limits { entries: 200, bytes: 1 << 20, ratio: 500 };
    let again = root.try_clone().expect("the tree once more");
    let (report, result) = Extractor::below(again, &archive[..], &split, limits).expect("begin").run();
    if result.is_ok() && report.exact {
        (&split).rewind().expect("the split form from its start");
        let mut whole = Vec::new();
        let (digest, length) = assemble(&split, root.as_fd(), &mut whole).expect("an exact split form is whole");
        assert!(whole == archive && length == archive.len() as u64, "the split form gives another archive");
        assert_eq!(digest, Digest::of(&archive));
    }
    tree::remove_path(&inside).expect("what was unpacked can be removed");
    assert_eq!(read(&beside).expect("the file beside the tree"), b"mine");
    remove_file(&beside).expect("remove it");
    assert_eq!(read_dir(scratch.path()).expect("list").count(), 0, "something was made beside the tree");
}

fn written(text: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for line in text.split(|byte| *byte == b'\n').take(100) {
        let Some((letter, line)) = line.split_first() else { continue };
        let at = line.iter().position(|byte| *byte == b'\t').unwrap_or(line.len());
        let (path, rest) = (&line[..at], line.get(at + 1..).unwrap_or_default());
        let kind = match letter {
            b'h' => Kind::HardLink,
            b'l' => Kind::Symlink,
            b'd' => Kind::Directory,
            b'p' => Kind::Fifo,
            b'n' => Kind::Device,
            _ => Kind::File,
        };
        let content = if kind == Kind::File { rest } else { b"" };
        let size = content.len() as u64;
        let mode = if letter.is_ascii_uppercase() { 0 } else { 0o644 };
        let (uid, gid) = (path.len() as u32 % 3, 0);
        let link = if kind == Kind::File { b"" } else { rest };
        let entry = WriteEntry { path, link, kind, mode, uid, gid, mtime: (1, 0), size, xattrs: &[] };
        writer.entry(&entry).and_then(|()| writer.out.write_all(content)).expect("write to memory");
    }
    writer.finish().expect("write to memory")
}
