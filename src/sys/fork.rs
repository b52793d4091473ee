//! Forking, and what only a forked process needs.
#![allow(unsafe_code)]

use std::io;

/// A child of ours that was forked and not yet reaped; dropping it leaves it alone.
#[derive(Debug)]
pub struct Child {
    pid: rustix::process::Pid,
}

impl Child {
    /// Returns its pid.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Kills it and reaps it.
    pub fn kill(&self) {
        // Neither call can fail for a child that nobody else reaps; if one did, there is nothing left to kill.
        let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), rustix::process::WaitOptions::empty());
    }
}

/// Forks a child that runs a function and exits with what it returns, without running any clean-up of the parent's
/// (buffers, destructors, exit handlers). A panic of the function ends the child with 101.
///
/// # Errors
/// When no process can be made.
pub fn fork(run: impl FnOnce() -> i32) -> io::Result<Child> {
    // Our callers have one thread (the shim's seed is forked before any other exists); in a threaded caller the child may
    // allocate all the same.
    match super::heap::fork() {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or(101);
            // SAFETY: _exit(2) does not return and touches no memory of ours.
            unsafe { libc::_exit(code) }
        }
        pid => match rustix::process::Pid::from_raw(pid) {
            Some(pid) => Ok(Child { pid }),
            None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
        },
    }
}

/// Closes a descriptor in a process of its own, for descriptors whose close waits: an nftables socket waits for the
/// kernel's clean-up of what was deleted (6 to 10 ms on Linux 6.18, `nft_rcv_nl_event`), and while it waits it keeps
/// everybody else from changing rules. So that process rests first until the clean-up is done.
///
/// The process is forked twice, so that no one has to reap it. Where no process can be made the close waits here.
pub fn close_elsewhere(descriptor: std::os::fd::OwnedFd) {
    use std::os::fd::AsRawFd;
    let Ok((read, write)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) else { return };
    let (kept, signal) = (descriptor.as_raw_fd(), read.as_raw_fd());
    let closer = || {
        let mut byte = 0u8;
        // Ends when the parent has closed its descriptor and then its end of the pipe: ours is then the last one.
        // SAFETY: the buffer is one byte that lives on this frame.
        unsafe { libc::read(901, (&raw mut byte).cast(), 1) };
        let rest = libc::timespec { tv_sec: 0, tv_nsec: 40_000_000 };
        // SAFETY: the duration lives on this frame; what is left of it is not asked for.
        unsafe { libc::nanosleep(&raw const rest, std::ptr::null_mut()) };
        0
    };
    let middle = move || {
        // Numbers far above what a small process has open; everything else goes, since the parent may hold locks, ports
        // and pipes whose end others wait for. The parent waits for this process, so it goes before the parent goes on.
        for (number, place) in [(kept, 900), (signal, 901)] {
            // SAFETY: dup2(2) takes numbers only; both are open, inherited from the process that owns them.
            if unsafe { libc::dup2(number, place) } < 0 {
                return 1;
            }
        }
        // SAFETY: close_range(2) takes numbers only; this process ends without touching any owner of them.
        unsafe { libc::syscall(libc::SYS_close_range, 0, 899, 0) };
        // SAFETY: as above.
        unsafe { libc::syscall(libc::SYS_close_range, 902, libc::c_uint::MAX, 0) };
        i32::from(fork(closer).is_err())
    };
    if let Ok(middle) = fork(middle) {
        let _ = rustix::process::waitpid(Some(middle.pid), rustix::process::WaitOptions::empty());
    }
    drop(descriptor);
    drop(write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_is_closed_elsewhere_keeps_no_port_of_its_parent() {
        let close = || {
            // Other tests' programs get no copies of what this thread has open.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            super::super::process::close_all_from(3, &[]).unwrap();
            let mut listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            for round in 0..100 {
                let (read, _write) = rustix::pipe::pipe().unwrap();
                close_elsewhere(read);
                drop(listener);
                listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("round {round}: {error}"));
            }
        };
        std::thread::scope(|scope| scope.spawn(close).join()).unwrap();
    }
}
