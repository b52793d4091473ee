//! What flows between a container, its log and its clients.

use super::*;

#[test]
fn streams_keep_their_order_in_the_log() {
    // Each writer waits until the other's line has been read, as a slow program would.
    let fixture = script("for n in 1 2 3 4 5; do echo out$n; sleep 0.02; echo err$n >&2; sleep 0.02; done");
    assert_eq!(fixture.start().wait().unwrap(), 0);
    assert_eq!(fixture.log(), (1..=5).map(|n| format!("out{n}\n!err{n}\n")).collect::<String>());
}

#[test]
fn what_is_written_to_stderr_first_is_read_first() {
    for _ in 0..20 {
        let fixture = script("echo err >&2; echo out");
        assert_eq!(fixture.start().wait().unwrap(), 0);
        assert_eq!(fixture.log(), "!err\nout\n");
    }
}

#[test]
fn stdin_flows_in_until_the_client_says_end_of_file() {
    let mut fixture = script("exec cat");
    fixture.plan.stdin_open = true;
    let (mut client, mut stream) = fixture.start_attached();
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 253) as u8).collect();
    let sent = data.clone();
    let mut input = stream.try_clone().unwrap();
    let writer = std::thread::scope(|scope| {
        scope.spawn(move || {
            input.write_all(&sent).unwrap();
            input.shutdown(std::net::Shutdown::Write).unwrap();
        });
        read_all(&mut stream)
    });
    assert!(writer.0 == data, "{} bytes came back of {}", writer.0.len(), data.len());
    assert_eq!(client.wait().unwrap(), 0);
}

#[test]
fn a_client_that_detaches_leaves_stdin_open() {
    let mut fixture = script("read a; read b; echo $a$b");
    fixture.plan.stdin_open = true;
    let (mut client, mut first) = fixture.start_attached();
    write_all(&mut first, b"one\n");
    drop(first);
    let mut second: UnixStream = fixture.connect().attach(true, true).unwrap().into();
    write_all(&mut second, b"two\n");
    assert_eq!(read_all(&mut second).0, b"onetwo\n");
    assert_eq!(client.wait().unwrap(), 0);
}

#[test]
fn without_an_open_stdin_there_is_nothing_to_read() {
    let fixture = script("read line || echo nothing");
    let (_client, mut stream) = fixture.start_attached();
    assert_eq!(read_all(&mut stream).0, b"nothing\n");
}

#[test]
fn a_slow_client_loses_nothing_and_slows_the_writer() {
    let fixture = script(
        "i=0; while [ $i -lt 20000 ]; do echo line $i of a text that is a good deal longer than a number; i=$((i+1)); done",
    );
    let (mut client, mut stream) = fixture.start_attached();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(fixture.connect().state().unwrap().status, Status::Running, "the writer waits for its slow reader");
    let (out, _, code) = read_all(&mut stream);
    let expected: String =
        (0..20000).map(|n| format!("line {n} of a text that is a good deal longer than a number\n")).collect();
    assert!(out == expected.as_bytes() && code == "0");
    assert_eq!(client.wait().unwrap(), 0);
}

#[test]
fn a_client_that_goes_away_lets_the_writer_go_on() {
    let mut fixture = script("head -c 5000000 /dev/zero");
    fixture.plan.log = Some(LogPlan { dir: fixture.dir.path().join("log"), max_size: 10 << 20, max_files: 2 });
    let (mut client, stream) = fixture.start_attached();
    std::thread::sleep(Duration::from_millis(100));
    drop(stream);
    assert_eq!(client.wait().unwrap(), 0);
    assert_eq!(fixture.log().len(), 5_000_000);
}

#[test]
fn a_client_may_read_the_rest_after_the_end() {
    let fixture = script("head -c 300000 /dev/zero");
    let (mut client, mut stream) = fixture.start_attached();
    assert_eq!(client.wait().unwrap(), 0);
    eventually("the container may be removed meanwhile", || !is_alive(&fixture.plan.run_dir));
    assert_eq!(read_all(&mut stream).0.len(), 300_000);
}

#[test]
fn a_terminal_is_read_written_and_resized() {
    let mut fixture = script("read line; echo got $line; stty size; exit 2");
    fixture.plan.bundle.process.tty = true;
    let (mut client, mut stream) = fixture.start_attached();
    client.resize(33, 101).unwrap();
    write_all(&mut stream, b"hello\n");
    let (out, err, code) = read_all(&mut stream);
    assert_eq!(
        (String::from_utf8(out).unwrap().as_str(), err.len(), code.as_str()),
        ("hello\r\ngot hello\r\n33 101\r\n", 0, "2")
    );
    let plain = script("sleep 100");
    let mut client = plain.start();
    assert!(matches!(client.resize(1, 1), Err(ShimError::Refused(_))));
    client.signal(9).unwrap();
}
