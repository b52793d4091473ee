//! Commands of the host and what they said.

use super::COMMAND_SECONDS;
use std::io::Write as _;
use std::process::{Command, Stdio};

/// What a finished command said.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Exit code; 128+n after a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) command: String,
}

impl Outcome {
    pub(crate) fn of(command: &mut Command, input: Option<&[u8]>) -> Self {
        let text = format!("{command:?}");
        command
            .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {text}: {error}"));
        let writer = input.map(|bytes| {
            let mut pipe = child.stdin.take().expect("stdin is piped");
            let bytes = bytes.to_vec();
            std::thread::Builder::new().spawn(move || pipe.write_all(&bytes)).expect("start a thread")
        });
        let output = child.wait_with_output().unwrap_or_else(|error| panic!("wait for {text}: {error}"));
        if let Some(writer) = writer {
            let _ = writer.join();
        }
        Self {
            code: exit_code(output.status),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            command: text,
        }
    }

    /// Asserts success and returns stdout without its last newline.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{} failed\nstdout: {}\nstderr: {}", self.command, self.stdout, self.stderr);
        self.stdout.trim_end_matches('\n').to_owned()
    }

    /// Asserts an exit code and that stderr says each of `words`; returns stderr.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.command, self.stdout, self.stderr);
        for word in words {
            assert!(self.stderr.contains(word), "{} does not say {word:?}: {}", self.command, self.stderr);
        }
        self.stderr
    }

    /// Asserts an exit code.
    #[track_caller]
    pub(crate) fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\nstdout: {}\nstderr: {}", self.command, self.stdout, self.stderr);
        self
    }
}

fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs a program of the host to its end and returns its outcome.
pub(crate) fn host(program: &str, arguments: &[&str]) -> Outcome {
    Outcome::of(Command::new("timeout").args(["-k", "5", COMMAND_SECONDS, program]).args(arguments), None)
}

/// The docker engine to compare with (`tests/oracle.sh` starts it).
pub(crate) fn docker(arguments: &[&str]) -> Outcome {
    let socket = std::env::var("BULKHEAD_TEST_DOCKER").unwrap_or_default();
    Outcome::of(
        Command::new("timeout").args(["-k", "5", COMMAND_SECONDS, "docker", "-H", &socket]).args(arguments),
        None,
    )
}
