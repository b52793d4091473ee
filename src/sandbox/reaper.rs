//! `--init`: a small PID 1 that forwards signals to the program and reaps what others leave behind.
//!
//! It is what is left of our process after all rights are dropped, so it holds no more than the program does.

use super::error::{Context, LaunchError};
use crate::sys::process::*;
use std::os::fd::OwnedFd;

/// Forks the program's process and stays as its parent; returns in the child only.
pub(super) fn stay_as_parent(alone: &Alone, report: &mut Option<OwnedFd>, terminal: bool) -> Result<(), LaunchError> {
    // Blocked before the fork, so that no signal falls between.
    set_signal_mask(u64::MAX);
    let Some(child) = fork_here(alone).at(|| "start the program below init")? else {
        // Its own group, in front of the terminal, as a shell would start it.
        let _ = rustix::process::setpgid(None, None);
        if terminal {
            let _ = rustix::termios::tcsetpgrp(standard_streams()[0], rustix::process::getpgrp());
        }
        set_signal_mask(0);
        return Ok(());
    };
    drop(report.take());
    exit(supervise(child))
}

fn supervise(program: i32) -> i32 {
    loop {
        match wait_signal(u64::MAX) {
            Ok(libc::SIGCHLD) => {
                while let Ok(Some((pid, code))) = reap_any() {
                    if pid == program {
                        return code;
                    }
                }
            }
            // Ours alone: we are in the background of our own terminal.
            Ok(libc::SIGTTIN | libc::SIGTTOU) => {}
            Ok(signal) => {
                let _ = kill(program, signal);
            }
            Err(_) => {}
        }
    }
}
