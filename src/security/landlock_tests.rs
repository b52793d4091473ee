//! Plans as golden text, and the domain against the real kernel: each test enters one in a thread of its own (a domain
//! binds the calling thread), below a tree that stands for a container's root.

use super::*;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{Mode, OFlags};
use std::fs;
use std::path::Path;

/// Letters of rights in the order of their bits: lower case is use, upper case is change.
fn letters(rights: FsRights) -> String {
    let table = [
        (AccessFs::Execute, 'x'),
        (AccessFs::WriteFile, 'w'),
        (AccessFs::ReadFile, 'r'),
        (AccessFs::ReadDir, 'l'),
        (AccessFs::RemoveDir, 'D'),
        (AccessFs::RemoveFile, 'F'),
        (AccessFs::MakeChar, '!'),
        (AccessFs::MakeDir, 'd'),
        (AccessFs::MakeReg, 'f'),
        (AccessFs::MakeSock, 's'),
        (AccessFs::MakeFifo, 'p'),
        (AccessFs::MakeBlock, '?'),
        (AccessFs::MakeSym, 'y'),
        (AccessFs::Refer, 'R'),
        (AccessFs::Truncate, 't'),
        (AccessFs::IoctlDev, 'i'),
    ];
    table.iter().filter(|(right, _)| rights.contains(*right)).map(|(_, letter)| letter).collect()
}

fn show(plan: &RuleSet) -> String {
    let mut text = format!("handled {}\n", letters(plan.handled));
    for rule in &plan.rules {
        text += &format!("{} {}\n", rule.path, letters(rule.rights));
    }
    for scope in plan.scopes {
        text += &format!("scope {scope:?}\n");
    }
    text + &plan.outcome.to_string()
}

fn input(abi: u32) -> RuleInput {
    RuleInput { abi, ..RuleInput::default() }
}

const NODES_TEXT: &str = "/dev/null wrti\n/dev/zero wrti\n/dev/full wrti\n/dev/random wrti\n/dev/urandom wrti\n\
    /dev/tty wrti\n/dev/console wrti\n/dev/ptmx wrti\n/dev/pts wrti\n";

#[test]
fn a_writable_root_gets_everything_but_devices() {
    let expected = format!("handled xwrlDF!dfsp?yRti\n/ xwrlDFdfspyRt\n{NODES_TEXT}full (ABI 7)");
    assert_eq!(show(&rule_set(&input(7))), expected);
}

#[test]
fn a_read_only_root_is_written_in_volumes_only() {
    let mount = |target: &str, readonly| RuleMount { target: target.to_owned(), readonly };
    let mut input = input(7);
    input.root_readonly = true;
    input.mounts = vec![mount("/data", false), mount("/etc/app", true), mount("/tmp", false)];
    input.devices = vec!["/dev/fuse".to_owned()];
    let expected = format!(
        "handled xwrlDF!dfsp?yRti\n/ xrl\n/dev xwrlDFdfspyRt\n/proc xwrlt\n/data xwrlDFdfspyRt\n/tmp xwrlDFdfspyRt\n\
         {NODES_TEXT}/dev/fuse wrti\nfull (ABI 7)"
    );
    assert_eq!(show(&rule_set(&input)), expected);
}

#[test]
fn older_kernels_get_less_and_say_so() {
    let check = |abi: u32, expected: &str| assert_eq!(show(&rule_set(&input(abi))), expected, "ABI {abi}");
    check(0, "handled \nnone: the kernel has no Landlock (CONFIG_SECURITY_LANDLOCK, 5.13, and `landlock` in lsm=)");
    check(1, "handled \nnone: no file rules, because renames across directories would fail before Linux 5.19");
    check(
        2,
        "handled xwrlDF!dfsp?yR\n/ xwrlDFdfspyR\n\
         partial (ABI 2): truncation (Linux 6.2) and device ioctls (Linux 6.10) are not covered",
    );
    check(
        4,
        "handled xwrlDF!dfsp?yRt\n/ xwrlDFdfspyRt\npartial (ABI 4): device ioctls are not covered before Linux 6.10",
    );
    // The scopes of ABI 6 are not wanted here, so nothing is missing at 5.
    assert!(matches!(rule_set(&input(5)).outcome, Outcome::Full { abi: 5 }));
}

#[test]
fn missing_file_rules_are_said_in_known_words() {
    for input in [input(1), RuleInput { sys_admin: true, ..input(7) }] {
        assert!(rule_set(&input).outcome.to_string().contains(NO_FILE_RULES));
    }
}

#[test]
fn scopes_stand_where_a_namespace_is_the_hosts() {
    let shared = RuleInput { host_pid: true, ..input(7) };
    assert!(show(&rule_set(&shared)).ends_with("scope Signal\nfull (ABI 7)"));
    let shared = RuleInput { host_net: true, ..input(7) };
    assert!(show(&rule_set(&shared)).ends_with("scope AbstractUnixSocket\nfull (ABI 7)"));
    let shared = RuleInput { host_net: true, ..input(5) };
    let text = show(&rule_set(&shared));
    assert!(text.ends_with("partial (ABI 5): no signal and abstract socket scopes before Linux 6.12"), "{text}");
}

#[test]
fn with_sys_admin_only_scopes_are_laid() {
    let admin = |abi| show(&rule_set(&RuleInput { sys_admin: true, ..input(abi) }));
    let why = "no file rules, because they would deny mounts and SYS_ADMIN is granted";
    assert_eq!(admin(7), format!("handled \nscope AbstractUnixSocket\nscope Signal\npartial (ABI 7): {why}"));
    assert_eq!(admin(5), format!("handled \nnone: {why}; no signal and abstract socket scopes before Linux 6.12"));
}

/// Runs `body` in a thread with its own mount namespace, on a tree with `/dev`, `/data`, `/tmp` as mounts, inside the
/// domain planned from `input`. Descriptors in `leaked` are opened before the domain is entered.
#[expect(clippy::disallowed_methods, reason = "test files")]
fn inside(input: RuleInput, body: impl FnOnce(&Path, &OwnedFd) + Send) {
    if crate::sys::landlock_abi() < 5 {
        crate::tests::skip("needs Landlock ABI 5");
        return;
    }
    if !crate::tests::root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("secret"), "host").unwrap();
    std::thread::scope(|scope| {
        let run = || {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
            tree(root);
            let leaked = rustix::fs::open(host.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let base = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            let open = |path: &str| {
                let relative = path.trim_start_matches('/');
                let relative = if relative.is_empty() { "." } else { relative };
                Ok(rustix::fs::openat(&base, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
            };
            let prepared = prepare(&rule_set(&input), open).unwrap().expect("something is laid");
            prepared.enter().unwrap();
            body(root, &leaked);
        };
        scope.spawn(run).join().unwrap();
    });
}

#[expect(clippy::disallowed_methods, reason = "test files")]
fn tree(root: &Path) {
    let tmpfs = |path: &Path| {
        fs::create_dir_all(path).unwrap();
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    };
    tmpfs(root);
    for name in ["dev", "data", "tmp"] {
        tmpfs(&root.join(name));
    }
    fs::create_dir_all(root.join("etc")).unwrap();
    fs::create_dir_all(root.join("proc")).unwrap();
    mount(Some("proc"), &root.join("proc"), Some("proc"), MsFlags::empty(), None::<&str>).unwrap();
    fs::write(root.join("etc/passwd"), "root").unwrap();
    // 1:3 is null, 1:5 is zero; the second stands for a node that nobody asked for.
    for (name, minor) in [("null", 3), ("other", 5)] {
        let device = rustix::fs::makedev(1, minor);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("dev").join(name),
            rustix::fs::FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            device,
        )
        .unwrap();
    }
}

fn errno<T>(result: Result<T, io::Error>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn read_only() -> RuleInput {
    let mount = |target: &str| RuleMount { target: target.to_owned(), readonly: false };
    RuleInput { root_readonly: true, mounts: vec![mount("/data"), mount("/tmp")], ..input(crate::sys::landlock_abi()) }
}

#[test]
fn device_ioctls_reach_our_own_nodes_only() {
    inside(input(crate::sys::landlock_abi()), |root, _| {
        let terminal_attributes = |name: &str| {
            let file = fs::File::options().read(true).write(true).open(root.join("dev").join(name)).unwrap();
            rustix::termios::tcgetattr(&file).map(drop).unwrap_err()
        };
        assert_eq!(terminal_attributes("null"), rustix::io::Errno::NOTTY);
        assert_eq!(terminal_attributes("other"), rustix::io::Errno::ACCESS);
    });
}

#[test]
fn nodes_cannot_be_made_but_pipes_and_sockets_can() {
    inside(input(crate::sys::landlock_abi()), |root, _| {
        let make = |name: &str, kind| {
            let path = root.join("data").join(name);
            let device = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::from_raw_mode(0o600), device)
        };
        use rustix::fs::FileType;
        assert_eq!(make("c", FileType::CharacterDevice), Err(rustix::io::Errno::ACCESS));
        assert_eq!(make("b", FileType::BlockDevice), Err(rustix::io::Errno::ACCESS));
        assert_eq!(make("p", FileType::Fifo), Ok(()));
        std::os::unix::net::UnixListener::bind(root.join("data/s")).unwrap();
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "test files")]
fn a_read_only_container_writes_in_its_volumes_only() {
    inside(read_only(), |root, _| {
        // The mounts themselves are writable here: what refuses is Landlock alone.
        assert_eq!(errno(fs::write(root.join("etc/passwd"), "x")), libc::EACCES);
        assert_eq!(errno(fs::write(root.join("etc/new"), "x")), libc::EACCES);
        assert_eq!(errno(fs::create_dir(root.join("new"))), libc::EACCES);
        assert_eq!(errno(fs::remove_file(root.join("etc/passwd"))), libc::EACCES);
        assert_eq!(
            errno(rustix::fs::rename(root.join("etc/passwd"), root.join("passwd")).map_err(Into::into)),
            libc::EACCES
        );
        assert_eq!(fs::read(root.join("etc/passwd")).unwrap(), b"root");
        fs::write(root.join("data/file"), "x").unwrap();
        fs::write(root.join("tmp/file"), "x").unwrap();
        fs::write(root.join("dev/null"), "x").unwrap();
        fs::write(root.join("proc/thread-self/oom_score_adj"), "500").unwrap();
        fs::write(root.join("proc/thread-self/oom_score_adj"), "0").unwrap();
    });
}

#[test]
fn a_leaked_host_directory_is_useless() {
    for input in [input(crate::sys::landlock_abi()), read_only()] {
        inside(input, |_, leaked| {
            let open =
                |path: &str, flags| rustix::fs::openat(leaked, path, flags, Mode::from_raw_mode(0o600)).map(drop);
            assert_eq!(open("secret", OFlags::RDONLY), Err(rustix::io::Errno::ACCESS));
            assert_eq!(open("secret", OFlags::WRONLY), Err(rustix::io::Errno::ACCESS));
            assert_eq!(open("made", OFlags::CREATE | OFlags::WRONLY), Err(rustix::io::Errno::ACCESS));
            assert_eq!(open(".", OFlags::RDONLY | OFlags::DIRECTORY), Err(rustix::io::Errno::ACCESS));
            assert_eq!(
                rustix::fs::unlinkat(leaked, "secret", rustix::fs::AtFlags::empty()),
                Err(rustix::io::Errno::ACCESS)
            );
        });
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "test files")]
fn ordinary_file_work_goes_on() {
    inside(input(crate::sys::landlock_abi()), |root, _| {
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(root.join("c")).unwrap();
        fs::write(root.join("a/b/file"), "one").unwrap();
        fs::rename(root.join("a/b/file"), root.join("c/file")).unwrap();
        fs::hard_link(root.join("c/file"), root.join("a/link")).unwrap();
        std::os::unix::fs::symlink("../c/file", root.join("a/sym")).unwrap();
        assert_eq!(fs::read(root.join("a/sym")).unwrap(), b"one");
        fs::File::options().write(true).open(root.join("c/file")).unwrap().set_len(1).unwrap();
        fs::rename(root.join("a"), root.join("c/a")).unwrap();
        fs::remove_dir_all(root.join("c")).unwrap();
        assert!(fs::read_dir(root).unwrap().count() >= 5);
        // Files that belong to no tree stay usable: pipes, memory, queues of the kernel's own mounts.
        let memory = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::empty()).unwrap();
        rustix::fs::ftruncate(&memory, 4096).unwrap();
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        for fd in [memory.as_fd(), reader.as_fd()] {
            use std::os::fd::AsRawFd as _;
            let path = root.join(format!("proc/thread-self/fd/{}", fd.as_raw_fd()));
            fs::File::options().read(true).write(true).open(path).unwrap();
        }
    });
}

#[test]
fn scopes_alone_leave_mounts_possible() {
    let admin = RuleInput { sys_admin: true, ..input(crate::sys::landlock_abi()) };
    if admin.abi < 6 {
        return;
    }
    inside(admin, |root, leaked| {
        mount(Some("tmpfs"), &root.join("data"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        rustix::fs::openat(leaked, "secret", OFlags::RDONLY, Mode::empty()).unwrap();
    });
    // And a domain with file rights denies them, which is why there are none with SYS_ADMIN.
    inside(input(crate::sys::landlock_abi()), |root, _| {
        let result = mount(Some("tmpfs"), &root.join("data"), Some("tmpfs"), MsFlags::empty(), None::<&str>);
        assert_eq!(result, Err(nix::errno::Errno::EPERM));
    });
}

#[test]
fn a_stream_of_the_host_can_be_granted() {
    if !crate::tests::root() {
        return;
    }
    if crate::sys::landlock_abi() < 5 {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("log");
    let file = fs::File::create(&path).unwrap();
    std::thread::scope(|scope| {
        let run = || {
            let plan = rule_set(&input(crate::sys::landlock_abi()));
            let missing = |_: &str| Err(io::Error::from_raw_os_error(libc::ENOENT));
            let prepared = prepare(&plan, missing).unwrap().unwrap();
            prepared.allow_stream(file.as_fd()).unwrap().enter().unwrap();
            assert_eq!(errno(fs::File::create(directory.path().join("other"))), libc::EACCES);
            fs::File::options().append(true).open(&path).unwrap();
        };
        scope.spawn(run).join().unwrap();
    });
}

/// Prints what a domain costs; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn measure() {
    let run = || {
        let open = |path: &str| Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
        let start = std::time::Instant::now();
        let plan = rule_set(&input(crate::sys::landlock_abi()));
        let planned = start.elapsed();
        let prepared = prepare(&plan, open).unwrap().unwrap();
        let made = start.elapsed();
        prepared.enter().unwrap();
        println!("plan {planned:?}, prepare {:?}, enter {:?}", made - planned, start.elapsed() - made);
    };
    for _ in 0..5 {
        std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    }
    for _ in 0..5 {
        let start = std::time::Instant::now();
        let features = crate::security::HostFeatures::probe();
        println!("probe {:?} {}", start.elapsed(), features.release);
    }
}
