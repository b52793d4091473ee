//! Why a process could not be started.

use rustix::io::Errno;
use std::fmt;

/// Why a launch or an added process failed: a whole sentence for humans, and what decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchError {
    /// What was attempted on what, and why it failed.
    pub message: String,
    /// Kernel error number, 0 when there is none.
    pub errno: i32,
    /// Kind.
    pub kind: LaunchErrorKind,
}

/// Kinds of [`LaunchError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchErrorKind {
    /// The program was not found (exit code 127).
    NotFound,
    /// The program cannot be executed (126).
    NotExecutable,
    /// Anything of ours (125).
    Runtime,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for LaunchError {}

impl LaunchError {
    /// Makes an error of ours that no system call caused.
    pub(super) fn refused(message: impl Into<String>) -> Self {
        Self { message: message.into(), errno: 0, kind: LaunchErrorKind::Runtime }
    }

    /// Makes an error of ours from a failed system call.
    pub(super) fn failed(what: impl fmt::Display, errno: Errno) -> Self {
        let message = format!("{what}: {}", reason(errno));
        Self { message, errno: errno.raw_os_error(), kind: LaunchErrorKind::Runtime }
    }

    /// Spells the error for a socket.
    pub(super) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            LaunchErrorKind::NotFound => 0,
            LaunchErrorKind::NotExecutable => 1,
            LaunchErrorKind::Runtime => 2,
        };
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&self.errno.to_le_bytes());
        bytes.extend_from_slice(self.message.as_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] spelt.
    pub(super) fn decode(bytes: &[u8]) -> Self {
        let kind = match bytes.first() {
            Some(0) => LaunchErrorKind::NotFound,
            Some(1) => LaunchErrorKind::NotExecutable,
            _ => LaunchErrorKind::Runtime,
        };
        let errno = bytes.get(1..5).and_then(|b| b.try_into().ok()).map_or(0, i32::from_le_bytes);
        let message = String::from_utf8_lossy(bytes.get(5..).unwrap_or_default()).into_owned();
        Self { message, errno, kind }
    }
}

/// Spells an error number in the C library's words, lower-case as in Go's, which users know from Docker.
pub(super) fn reason(errno: Errno) -> String {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error()).to_string();
    let text = text.split(" (os error").next().unwrap_or_default().to_owned();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Adds to a failed system call what was attempted.
pub(super) trait Context<T> {
    /// Names the attempt.
    fn at<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, LaunchError>;
}

impl<T> Context<T> for Result<T, Errno> {
    fn at<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, LaunchError> {
        self.map_err(|errno| LaunchError::failed(what(), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn at<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T, LaunchError> {
        self.map_err(|e| LaunchError::failed(what(), Errno::from_raw_os_error(e.raw_os_error().unwrap_or(libc::EIO))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_socket() {
        for kind in [LaunchErrorKind::NotFound, LaunchErrorKind::NotExecutable, LaunchErrorKind::Runtime] {
            let error = LaunchError { message: "mount proc: no".into(), errno: 13, kind };
            assert_eq!(LaunchError::decode(&error.encode()), error);
        }
        assert_eq!(LaunchError::decode(&[]).kind, LaunchErrorKind::Runtime);
    }

    #[test]
    fn reasons_read_like_dockers() {
        assert_eq!(reason(Errno::ACCESS), "permission denied");
        assert_eq!(reason(Errno::NOENT), "no such file or directory");
    }
}
