//! How fast output is logged, and at what size.

use super::*;

#[test]
fn output_is_logged_fast_and_in_little_memory() {
    const BYTES: u64 = 1 << 28;
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
    let seconds = begun.elapsed().as_secs_f64();
    let rate = BYTES as f64 / 1e6 / seconds;
    #[expect(clippy::print_stderr, reason = "the figure is the point of this test")]
    {
        eprintln!("logged {rate:.0} MB/s, {} KiB of private memory", waiter.1);
    }
    assert_eq!(waiter.0, 0);
    assert!(waiter.1 < 32 << 10, "{} KiB", waiter.1);
    // A shared machine in a debug build is given a quarter of the figure that `just bench` checks.
    assert!(rate > 50.0, "{rate:.0} MB/s");
    let kept: u64 = std::fs::read_dir(fixture.dir.path().join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!((40 << 20..=50 << 20).contains(&kept), "{kept} bytes are kept");
}

/// Private memory of a process in KiB.
fn resident(pid: i32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Private_Dirty:"))?;
    line.split_whitespace().next()?.parse().ok()
}
