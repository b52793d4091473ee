//! What is said on a shim's sockets.
//!
//! Each message is a frame on a unix stream socket: a little-endian `u32` length, then that many bytes of JSON;
//! descriptors ride on the frame's first byte (`SCM_RIGHTS`). The launch socket (from the engine that started the
//! shim) and the control socket (`$RUN/<id>/shim.sock`, mode 0600) speak the same language.
//!
//! Start: engine sends [`Request::Launch`]; shim answers [`Reply::Namespaces`] with the network namespace's descriptor
//! (when it has a private one); the engine may send [`Request::Attach`]; after the network is in place it sends
//! [`Request::Proceed`] with the descriptors named there; shim answers [`Reply::Started`] or [`Reply::Failed`]. The
//! socket is a control connection from then on and is told [`Reply::Exited`] without asking, however soon that is. An
//! engine that lays no links sends all it has to say at once, and is answered (without the first) when the program runs.
//!
//! End: the caller that takes down what the container held outside the shim may begin when it hears the end, and hand over
//! what the shim is to hold to its own end ([`Request::Hold`]); it is told [`Reply::Cleared`] when the shim's own part is done,
//! and says [`Request::Finished`].
//!
//! An attached client holds a stream socket of its own: towards the client, frames as in the Engine API (byte 0 =
//! stream: 1 stdout, 2 stderr, 3 end; bytes 4..8 = big-endian length; payload); the payload of stream 3 is the exit
//! code in decimal. Towards the shim, raw bytes of stdin; shutting down that direction is its end of file.

use super::plan::{ShimPlan, State};
use crate::sandbox::Process;
use serde::{Deserialize, Serialize};

/// What a client asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Make the namespaces of this plan.
    Launch(Box<ShimPlan>),
    /// The network is in place: start the first process. Descriptors: those of `handles`, in order.
    Proceed(NetworkHandles),
    /// Open a stream to the container's stdio; answered with [`Reply::Attached`] and one descriptor.
    Attach {
        /// Send bytes to stdin.
        stdin: bool,
        /// Receive stdout and stderr.
        output: bool,
    },
    /// Start another process. Descriptors: stdin, stdout, stderr of the process (three, unless `tty`).
    Exec {
        /// The process.
        process: Box<Process>,
        /// Give it all capabilities and no filter (`exec --privileged`).
        privileged: bool,
    },
    /// Send a signal to the first process.
    Signal {
        /// Signal number.
        signal: i32,
    },
    /// Ask the container to stop: signal, wait, SIGKILL. Answered with [`Reply::Stopped`] at the end. Unless whoever started
    /// it is there to do so, the caller takes down what the container held, and says [`Request::Finished`].
    Stop {
        /// Signal number instead of the plan's.
        signal: Option<i32>,
        /// Seconds instead of the plan's; negative waits for ever.
        timeout: Option<i64>,
        /// Why.
        reason: StopReason,
    },
    /// Change the size of the first process's terminal.
    Resize {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
    /// Answer with [`Reply::Exited`] when the container has ended for good.
    Wait,
    /// Freeze all processes.
    Pause,
    /// Thaw all processes.
    Unpause,
    /// Answer with [`Reply::State`].
    State,
    /// Keep the descriptors open to the end: their names go away, and what is given back with the last descriptor of each
    /// is waited for by whoever closes it. Not answered.
    Hold,
    /// The caller that started the container ([`ShimPlan::starter_finishes`]) or stopped it has taken down what it held
    /// outside the shim. Not answered.
    Finished,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopReason {
    /// A user wishes it, which `unless-stopped` heeds at the next boot.
    User,
    /// The machine shuts down; the restart policy brings the container back.
    Shutdown,
    /// The caller removes it then: its last state is not kept, and nothing waits for the kernel to write its files to the
    /// disk.
    Removal,
}

/// Descriptors that follow [`Request::Proceed`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NetworkHandles {
    /// A UDP and a TCP listening socket inside the container's namespace come first, to answer names on; the shim
    /// forwards questions to these servers of the host.
    pub dns_servers: Option<Vec<std::net::SocketAddr>>,
    /// Then one listening socket in the host's namespace for each entry, spliced to this address inside
    /// (published loopback ports; TCP: a listener, UDP: a bound socket).
    pub forwards: Vec<Forward>,
}

/// One published loopback port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The container's address and port, reached from inside its network namespace or over the bridge.
    pub target: std::net::SocketAddr,
}

/// What the shim answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Namespaces exist; one descriptor (network namespace) follows when `net` is true.
    Namespaces {
        /// Whether a descriptor follows.
        net: bool,
        /// Host pid of a process inside, for `/proc/PID/ns`.
        pid: i32,
    },
    /// The first process runs.
    Started {
        /// Its host pid.
        pid: i32,
    },
    /// It could not be started.
    Failed(Failure),
    /// One descriptor follows: the stream.
    Attached,
    /// The added process runs; one descriptor (its terminal's master) follows when it has a terminal.
    ExecStarted {
        /// Its host pid.
        pid: i32,
    },
    /// The added process ended.
    ExecExited {
        /// Exit code, 128 + n for signal n.
        code: i32,
    },
    /// Done.
    Done,
    /// The stop has ended.
    Stopped {
        /// Whether SIGKILL was needed.
        killed: bool,
        /// Whether the first process had no handler for the stop signal, which PID 1 then ignores.
        ignored: bool,
    },
    /// The container has ended.
    Exited {
        /// Exit code, 128 + n for signal n.
        code: i32,
    },
    /// Told unasked, after the end, to the caller that takes down what the container held: nothing else of it is left.
    Cleared,
    /// The state.
    State(Box<State>),
    /// The request cannot be carried out now.
    Refused(String),
}

/// Why a process could not be started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What was attempted on what, for humans.
    pub message: String,
    /// Kernel error number, 0 when there is none.
    pub errno: i32,
    /// Kind, which decides the exit code of `run` (125, 126, 127).
    pub kind: FailureKind,
}

/// Kinds of start failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The program was not found (127).
    NotFound,
    /// The program cannot be executed (126).
    NotExecutable,
    /// Anything of ours (125).
    Runtime,
}
