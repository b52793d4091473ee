//! How fast output is logged, and at what size.

use super::*;

const BYTES: u64 = 1 << 28;

#[test]
fn output_is_logged_fast_and_in_little_memory() {
    // What this machine carries through a pipe at all: it may be emulated, or busy, and neither is ours to judge.
    let piped = piped();
    let mut fixture = script(&format!("head -c {BYTES} /dev/zero"));
    fixture.plan.log = Some(LogPlan { dir: fixture.dir.path().join("log"), max_size: 10 << 20, max_files: 5 });
    let mut client = fixture.start();
    let begun = Instant::now();
    let pid = client.state().unwrap().shim_pid;
    let waiter = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| client.wait().unwrap());
        let mut largest = 0;
        while !waiting.is_finished() {
            largest = largest.max(resident(pid).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(20));
        }
        (waiting.join().unwrap(), largest)
    });
    let logged = begun.elapsed();
    let piped = piped.max(self::piped());
    let rate = |took: Duration| BYTES as f64 / 1e6 / took.as_secs_f64();
    let figures = format!("{:.0} MB/s through a pipe, {:.0} MB/s logged", rate(piped), rate(logged));
    #[expect(clippy::print_stderr, reason = "the figure is the point of this test")]
    {
        eprintln!("{figures}, {} KiB of private memory", waiter.1);
    }
    assert_eq!(waiter.0, 0);
    assert!(waiter.1 < 32 << 10, "{} KiB", waiter.1);
    // The figure itself is what `just bench` checks, of the program as it is shipped and on a quiet machine.
    assert!(logged < piped * 8, "{figures}");
    let kept: u64 = std::fs::read_dir(fixture.dir.path().join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!((40 << 20..=50 << 20).contains(&kept), "{kept} bytes are kept");
}

/// How long a container needs to hand the same bytes to a program that drops them.
fn piped() -> Duration {
    let fixture = script(&format!("head -c {BYTES} /dev/zero | cat > /dev/null"));
    let mut client = fixture.start();
    let begun = Instant::now();
    assert_eq!(client.wait().unwrap(), 0);
    begun.elapsed()
}

/// Private memory of a process in KiB.
fn resident(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"))?;
    line.split_whitespace().next()?.parse().ok()
}
