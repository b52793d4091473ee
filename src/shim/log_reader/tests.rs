use super::*;
use crate::shim::LogPlan;
use crate::shim::log::LogWriter;

struct Fixture {
    _dir: tempfile::TempDir,
    plan: LogPlan,
    writer: LogWriter,
}

fn fixture(max_size: u64, max_files: u32) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let plan = LogPlan { dir: dir.path().join("log"), max_size, max_files };
    let writer = LogWriter::open(&plan).unwrap();
    Fixture { _dir: dir, plan, writer }
}

fn read(plan: &LogPlan, options: LogOptions) -> Vec<(u8, String, bool)> {
    let mut reader = LogReader::open(&plan.dir, options).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        entries.push((entry.stream.number(), String::from_utf8(entry.bytes.to_vec()).unwrap(), entry.starts_line));
    }
    entries
}

fn text(plan: &LogPlan, options: LogOptions) -> String {
    read(plan, options).into_iter().map(|(_, text, _)| text).collect()
}

fn tail(lines: u64) -> LogOptions {
    LogOptions { tail: Some(lines), ..LogOptions::default() }
}

#[test]
fn streams_order_and_partial_lines_are_kept() {
    let mut fixture = fixture(1 << 20, 2);
    for (stream, bytes) in [(LogStream::Stdout, "a\nb"), (LogStream::Stderr, "err\n"), (LogStream::Stdout, "c\n")] {
        fixture.writer.append(stream, Timestamp(1), bytes.as_bytes()).unwrap();
    }
    let expected = [(1, "a\n", true), (1, "b", true), (2, "err\n", true), (1, "c\n", false)];
    assert_eq!(
        read(&fixture.plan, LogOptions::default()),
        expected.map(|(stream, text, start)| (stream, text.to_owned(), start))
    );
}

#[test]
fn tail_gives_the_last_lines_across_segments() {
    let mut fixture = fixture(4096, 100);
    let lines: Vec<String> = (0..1000).map(|n| format!("line {n}\n")).collect();
    for line in &lines {
        fixture.writer.append(LogStream::Stdout, Timestamp(1), line.as_bytes()).unwrap();
    }
    for wanted in [0, 1, 2, 50, 169, 170, 500, 999, 1000, 5000] {
        assert_eq!(
            text(&fixture.plan, tail(wanted)),
            lines[1000usize.saturating_sub(wanted as usize)..].concat(),
            "tail {wanted}"
        );
    }
}

#[test]
fn an_unfinished_last_line_counts_as_a_line() {
    let mut fixture = fixture(1 << 20, 2);
    fixture.writer.append(LogStream::Stdout, Timestamp(1), b"one\ntwo\nthree").unwrap();
    assert_eq!(text(&fixture.plan, tail(1)), "three");
    assert_eq!(text(&fixture.plan, tail(2)), "two\nthree");
}

#[test]
fn since_and_until_bound_the_times() {
    let mut fixture = fixture(1 << 20, 2);
    for time in 1..=9 {
        fixture.writer.append(LogStream::Stdout, Timestamp(time), format!("{time}").as_bytes()).unwrap();
    }
    let between = |since, until| LogOptions {
        since: Some(Timestamp(since)),
        until: Some(Timestamp(until)),
        ..LogOptions::default()
    };
    assert_eq!(text(&fixture.plan, between(3, 5)), "345");
    assert_eq!(text(&fixture.plan, between(10, 20)), "");
}

/// It was counted as a line and then left out for nothing: `--tail 2` gave one line.
#[test]
fn a_line_without_an_end_on_one_stream_takes_no_line_of_the_other_from_the_tail() {
    let mut fixture = fixture(1 << 20, 2);
    fixture.writer.append(LogStream::Stdout, Timestamp(1), b"ready> ").unwrap();
    for line in [&b"one\n"[..], b"two\n", b"three\n"] {
        fixture.writer.append(LogStream::Stderr, Timestamp(2), line).unwrap();
    }
    assert_eq!(text(&fixture.plan, tail(2)), "two\nthree\n");
    assert_eq!(text(&fixture.plan, tail(3)), "one\ntwo\nthree\n");
    assert_eq!(text(&fixture.plan, tail(4)), "ready> one\ntwo\nthree\n");
}

#[test]
fn a_torn_record_ends_what_is_read_and_nothing_else() {
    let mut fixture = fixture(1 << 20, 2);
    fixture.writer.append(LogStream::Stdout, Timestamp(1), b"whole\n").unwrap();
    let segment = fixture.plan.dir.join(segment_name(1));
    let whole = std::fs::read(&segment).unwrap();
    for garbage in [&b"\xB1\x6B"[..], &[0; 40], &[0xFF; 100], &whole[..whole.len() - 1]] {
        std::fs::write(&segment, [&whole[..], garbage].concat()).unwrap();
        assert_eq!(text(&fixture.plan, LogOptions::default()), "whole\n");
        assert_eq!(text(&fixture.plan, tail(1)), "whole\n");
    }
}

#[test]
fn a_torn_segment_does_not_hide_the_next_one() {
    let mut fixture = fixture(4096, 9);
    fixture.writer.append(LogStream::Stdout, Timestamp(1), &[b'x'; 4070]).unwrap();
    fixture.writer.append(LogStream::Stdout, Timestamp(1), b"next\n").unwrap();
    let segment = fixture.plan.dir.join(segment_name(1));
    std::fs::write(&segment, &std::fs::read(&segment).unwrap()[..2000]).unwrap();
    assert_eq!(text(&fixture.plan, LogOptions::default()), "next\n");
}

#[test]
fn a_reader_overtaken_by_rotation_goes_on_with_what_is_left() {
    let mut fixture = fixture(4096, 2);
    fixture.writer.append(LogStream::Stdout, Timestamp(1), b"first\n").unwrap();
    let mut reader = LogReader::open(&fixture.plan.dir, LogOptions::default()).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().bytes, b"first\n");
    for n in 0..10 {
        fixture
            .writer
            .append(LogStream::Stdout, Timestamp(1), format!("{n}{}\n", "x".repeat(3000)).as_bytes())
            .unwrap();
    }
    let mut firsts = String::new();
    while let Some(entry) = reader.next().unwrap() {
        firsts.push(entry.bytes[0] as char);
    }
    assert_eq!(firsts, "089", "the segment already open, then the two that are left");
}

#[test]
fn following_sees_all_that_is_written_until_the_shim_is_gone() {
    let mut fixture = fixture(4096, 1000);
    let run_dir = tempfile::tempdir().unwrap();
    let lock = crate::shim::lock::tests::lock_in_child(run_dir.path());
    let options = LogOptions { follow: Some(run_dir.path().to_owned()), ..LogOptions::default() };
    let dir = fixture.plan.dir.clone();
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(move || {
            let mut reader = LogReader::open(&dir, options).unwrap();
            let mut seen = String::new();
            while let Some(entry) = reader.next().unwrap() {
                seen.push_str(std::str::from_utf8(entry.bytes).unwrap());
            }
            seen
        });
        for n in 0..2000 {
            fixture.writer.append(LogStream::Stdout, Timestamp(1), format!("{n}\n").as_bytes()).unwrap();
        }
        drop(lock);
        reader.join().unwrap()
    });
    assert_eq!(seen, (0..2000).map(|n| format!("{n}\n")).collect::<String>());
}

#[test]
fn a_follower_hears_of_a_log_that_is_made_after_it_looked() {
    /// Returns how long the first entry took to be seen.
    fn follow_once() -> Duration {
        let mut fixture = fixture(4096, 2);
        let run_dir = tempfile::tempdir().unwrap();
        let lock = crate::shim::lock::tests::lock_in_child(run_dir.path());
        let options = LogOptions { follow: Some(run_dir.path().to_owned()), ..LogOptions::default() };
        let mut reader = LogReader::open(&fixture.plan.dir, options).unwrap();
        let started = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| fixture.writer.append(LogStream::Stdout, Timestamp(1), b"x\n").unwrap());
            assert!(reader.next().unwrap().is_some());
        });
        drop(lock);
        started.elapsed()
    }
    // A busy machine may take its time once.
    assert!((0..3).any(|_| follow_once() < LOOK), "it looked by itself, it was not told");
}
