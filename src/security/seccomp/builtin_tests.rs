//! What our own profiles promise, number by number and argument by argument, and on the running kernel.

use super::*;
use std::path::Path;
use std::time::{Duration, Instant};

fn options(capabilities: CapabilitySet) -> ProfileOptions {
    ProfileOptions { capabilities, kernel: (6, 18), i386: false }
}

fn ours(source: ProfileSource<'_>, capabilities: CapabilitySet) -> SeccompFilter {
    compile_profile(source, &options(capabilities)).unwrap()
}

fn verdict(filter: &SeccompFilter, name: &str, arguments: &[u64]) -> u32 {
    let number = syscalls::number(&syscalls::X86_64, name).unwrap_or_else(|| panic!("no system call {name}"));
    let mut six = [0; 6];
    six[..arguments.len()].copy_from_slice(arguments);
    run(&filter.instructions, &Call::x86_64(number, six)).unwrap().0
}

fn errno(number: i32) -> u32 {
    ERRNO | number as u32
}

/// Rewrites `programs.rs` when asked to, and proves that it is what the profiles compile to.
#[test]
#[expect(clippy::disallowed_methods, reason = "blessing writes a source file")]
fn prebuilt_programs_are_current() {
    let mut text = "//! Written by `BULKHEAD_BLESS=1 cargo test --lib prebuilt`.\n".to_owned();
    let levels = [
        ("DEFAULT", ProfileSource::Default, CapabilitySet::DEFAULT),
        ("STRICT", ProfileSource::Strict, CapabilitySet::STRICT),
    ];
    for (name, source, capabilities) in levels {
        let program = ours(source, capabilities).instructions;
        text += &format!("\n#[rustfmt::skip]\npub(super) static {name}: [u64; {}] = [\n", program.len());
        for line in program.chunks(6) {
            let words: Vec<String> = line.iter().map(|word| format!("{word:#018x},")).collect();
            text += &format!("    {}\n", words.join(" "));
        }
        text += "];\n";
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/seccomp/programs.rs");
    if std::env::var_os("BULKHEAD_BLESS").is_some() {
        std::fs::write(&path, &text).unwrap();
        return;
    }
    assert!(std::fs::read_to_string(&path).unwrap() == text, "run BULKHEAD_BLESS=1 cargo test --lib prebuilt");
    for (_, source, capabilities) in levels {
        let found = prebuilt::find(source, &options(capabilities)).unwrap();
        assert_eq!(found, ours(source, capabilities).instructions);
    }
}

#[test]
fn prebuilt_programs_serve_equal_relevant_capabilities_only() {
    for source in [ProfileSource::Default, ProfileSource::Strict] {
        let profile = Profile::parse("ours", source.text()).unwrap();
        assert_eq!(relevant(&profile).0 & !prebuilt::RELEVANT.0, 0);
    }
    let with = |capability| prebuilt::find(ProfileSource::Default, &options(CapabilitySet::DEFAULT.with(capability)));
    assert!(with(Capability::SYS_ADMIN).is_none());
    assert!(with(Capability::parse("LEASE").unwrap()).is_some());
    let without = CapabilitySet::DEFAULT.without(Capability::SYS_CHROOT);
    assert!(prebuilt::find(ProfileSource::Default, &options(without)).is_none());
    let filter = load_profile(ProfileSource::Default, &options(without)).unwrap();
    assert_eq!(verdict(&filter, "chroot", &[]), errno(libc::EPERM));
}

#[test]
fn our_profiles_name_only_calls_and_capabilities_that_exist() {
    for source in [ProfileSource::Default, ProfileSource::Strict] {
        let profile = Profile::parse("ours", source.text()).unwrap();
        for name in profile.entries().iter().flat_map(profile::Entry::names) {
            assert!(syscalls::number(&syscalls::X86_64, name).is_some(), "{name}");
        }
        for name in profile.capability_names() {
            Capability::parse(name).unwrap();
        }
    }
}

#[test]
fn sizes_stay_small() {
    let default = load_profile(ProfileSource::Default, &options(CapabilitySet::DEFAULT)).unwrap();
    let strict = load_profile(ProfileSource::Strict, &options(CapabilitySet::STRICT)).unwrap();
    assert!(default.instructions.len() <= 400, "{}", default.instructions.len());
    // Docker's default lets 308 of 381 pass with its default capabilities.
    let count = default.count();
    assert!(count.allowed + count.conditional <= 292, "{count:?}");
    let less = strict.count();
    assert!(less.allowed + less.conditional + 15 <= count.allowed + count.conditional, "{less:?} {count:?}");
}

#[test]
fn the_start_path_pays_next_to_nothing() {
    let start = Instant::now();
    for _ in 0..100 {
        load_profile(ProfileSource::Default, &options(CapabilitySet::DEFAULT)).unwrap();
    }
    let each = start.elapsed() / 100;
    assert!(each < Duration::from_micros(50), "{each:?}");
}

#[test]
fn ordinary_programs_find_their_calls() {
    let filter = ours(ProfileSource::Default, CapabilitySet::DEFAULT);
    let names = "read write openat execve fork vfork wait4 mmap mprotect futex epoll_wait accept4 sendfile io_setup \
                 io_submit inotify_add_watch ptrace process_vm_readv chroot setgroups setresuid capset prctl seccomp \
                 landlock_create_ruleset memfd_create shmget semop msgget timerfd_create signalfd4 eventfd2 flock \
                 fallocate copy_file_range renameat2 statx getrandom rseq clock_nanosleep sched_setaffinity \
                 pidfd_open close_range faccessat2 fchmodat2 openat2 splice tee mq_open mlockall process_vm_writev";
    for name in names.split_whitespace() {
        assert_eq!(verdict(&filter, name, &[]), ALLOW, "{name}");
    }
    let sockets =
        [(1, 1, 0), (1, 2, 0), (2, 1, 6), (2, 2, 17), (10, 1, 0), (2, 3, 1), (16, 3, 0), (16, 2, 4), (2, 1, 262)];
    for (family, kind, protocol) in sockets {
        // SOCK_CLOEXEC | SOCK_NONBLOCK.
        assert_eq!(verdict(&filter, "socket", &[family, kind | 0o2_004_000, protocol]), ALLOW, "{family} {kind}");
    }
    // What pthread_create and fork pass.
    for flags in [0x3d_0f00, 0x120_0011, 0x4111, 17] {
        assert_eq!(verdict(&filter, "clone", &[flags]), ALLOW, "{flags:#x}");
    }
    assert_eq!(verdict(&filter, "mknod", &[0, 0o010_644]), ALLOW);
    assert_eq!(verdict(&filter, "mknodat", &[0, 0, 0o644]), ALLOW);
    for request in [0x5401, 0x5413, 0x540e, 0x8004_667e, 0x5452] {
        assert_eq!(verdict(&filter, "ioctl", &[0, request]), ALLOW, "{request:#x}");
    }
}

#[test]
fn kernel_doors_are_closed() {
    let filter = ours(ProfileSource::Default, CapabilitySet::DEFAULT);
    let denied = "mount umount2 move_mount fsopen open_tree pivot_root unshare setns bpf perf_event_open keyctl add_key \
                  request_key kexec_load init_module swapon reboot iopl ioperm quotactl acct syslog \
                  open_by_handle_at name_to_handle_at kcmp pidfd_getfd process_madvise mbind move_pages \
                  fanotify_init settimeofday clock_settime vhangup sethostname modify_ldt uselib ustat sysfs \
                  adjtimex clock_adjtime vmsplice remap_file_pages get_robust_list";
    for name in denied.split_whitespace() {
        assert_eq!(verdict(&filter, name, &[]), errno(libc::EPERM), "{name}");
    }
    let missing = "clone3 io_uring_setup io_uring_enter io_uring_register userfaultfd memfd_secret statmount \
                   cachestat sched_setattr";
    for name in missing.split_whitespace() {
        assert_eq!(verdict(&filter, name, &[]), errno(libc::ENOSYS), "{name}");
    }
    // AX25, KEY, PACKET, RDS, CAN, TIPC, BLUETOOTH, ALG, VSOCK, KCM, QIPCRTR, SMC, XDP, and one that is none.
    for family in [3, 15, 17, 21, 29, 30, 31, 38, 40, 41, 42, 43, 44, 0xffff_ffff] {
        assert_eq!(verdict(&filter, "socket", &[family, 1, 0]), errno(libc::EAFNOSUPPORT), "{family}");
        assert_eq!(verdict(&filter, "socketpair", &[family, 1, 0]), errno(libc::EAFNOSUPPORT), "{family}");
    }
    // NETLINK_NETFILTER, _XFRM, _CRYPTO; DCCP.
    for protocol in [12, 6, 21] {
        assert_eq!(verdict(&filter, "socket", &[16, 3, protocol]), errno(libc::EPROTONOSUPPORT));
    }
    assert_eq!(verdict(&filter, "socket", &[2, 6, 33]), errno(libc::EAFNOSUPPORT));
    for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(verdict(&filter, "clone", &[flag | 17]), errno(libc::EPERM), "{flag:#x}");
    }
    for persona in [0x4_0000, 1, 0x40_0000, 0x2_0009] {
        assert_eq!(verdict(&filter, "personality", &[persona]), errno(libc::EPERM), "{persona:#x}");
    }
    assert_eq!(verdict(&filter, "mknod", &[0, 0o020_666, 0x103]), errno(libc::EPERM));
    assert_eq!(verdict(&filter, "mknodat", &[0, 0, 0o060_666, 0x800]), errno(libc::EPERM));
    assert_eq!(verdict(&filter, "sched_setscheduler", &[0, 1]), errno(libc::EPERM));
    assert_eq!(verdict(&filter, "sched_setscheduler", &[0, 3 | 0x4000_0000]), ALLOW);
}

/// The kernel looks at 32 bits of these arguments, so the upper half must change no verdict (CVE-2017-5226's second
/// life, CVE-2019-10063).
#[test]
fn upper_halves_of_int_arguments_do_not_matter() {
    let filter = ours(ProfileSource::Default, CapabilitySet::DEFAULT);
    for upper in [0, 1 << 32, 0xffff_ffff << 32] {
        for (request, name) in [(0x5412, "TIOCSTI"), (0x541c, "TIOCLINUX"), (0x5423, "TIOCSETD"), (0x541d, "TIOCCONS")]
        {
            assert_eq!(verdict(&filter, "ioctl", &[0, request | upper]), errno(libc::EPERM), "{name} {upper:#x}");
        }
        assert_eq!(verdict(&filter, "socket", &[40 | upper, 1 | upper, 0]), errno(libc::EAFNOSUPPORT));
        assert_eq!(verdict(&filter, "socket", &[2 | upper, 1 | upper, upper]), ALLOW);
        assert_eq!(verdict(&filter, "personality", &[0x4_0000 | upper]), errno(libc::EPERM));
        assert_eq!(verdict(&filter, "clone", &[0x1000_0011 | upper]), errno(libc::EPERM));
        assert_eq!(verdict(&filter, "mknod", &[0, 0o020_666 | upper]), errno(libc::EPERM));
    }
}

#[test]
fn capabilities_open_what_belongs_to_them() {
    let check = |name: &str, calls: &str| {
        let capability = Capability::parse(name).unwrap();
        let with = ours(ProfileSource::Default, CapabilitySet::DEFAULT.with(capability));
        let without = ours(ProfileSource::Default, CapabilitySet::DEFAULT.without(capability));
        for call in calls.split_whitespace() {
            assert_eq!(verdict(&with, call, &[]), ALLOW, "{call} with {name}");
            assert_ne!(verdict(&without, call, &[]), ALLOW, "{call} without {name}");
        }
    };
    check("SYS_ADMIN", "mount umount2 move_mount fsopen unshare setns clone3 sethostname bpf open_tree_attr");
    check("SYS_PTRACE", "kcmp pidfd_getfd process_madvise");
    check("BPF", "bpf");
    check("PERFMON", "perf_event_open");
    check("SYS_CHROOT", "chroot");
    check("SYS_TIME", "settimeofday clock_settime");
    check("SYS_NICE", "mbind move_pages");
    check("DAC_READ_SEARCH", "open_by_handle_at");
    let admin = ours(ProfileSource::Default, CapabilitySet::DEFAULT.with(Capability::SYS_ADMIN));
    assert_eq!(verdict(&admin, "clone", &[0x1000_0000]), ALLOW);
    let net = ours(ProfileSource::Default, CapabilitySet::DEFAULT.with(Capability::NET_ADMIN));
    assert_eq!(verdict(&net, "socket", &[16, 3, 12]), ALLOW);
    let raw = ours(ProfileSource::Default, CapabilitySet::DEFAULT.with(Capability::NET_RAW));
    assert_eq!(verdict(&raw, "socket", &[17, 3, 0]), ALLOW);
    let nodes = ours(ProfileSource::Default, CapabilitySet::ALL);
    assert_eq!(verdict(&nodes, "mknod", &[0, 0o020_666]), ALLOW);
    assert_eq!(verdict(&nodes, "keyctl", &[]), errno(libc::EPERM), "closed even then");
}

/// A container may hold `NET_RAW` for `ping` behind a profile compiled without it.
#[test]
fn raw_sockets_are_for_ping_alone() {
    let (raw, admin) = (Capability::NET_RAW, Capability::NET_ADMIN);
    let closed = [("socket", [2, 3, 255]), ("socket", [2, 3, 6]), ("socket", [2, 3, 0]), ("socket", [10, 3, 58])];
    let options = [("IP_HDRINCL", 0, 3), ("IP_TRANSPARENT", 0, 19), ("IPV6_TRANSPARENT", 41, 75)];
    for (source, set) in
        [(ProfileSource::Default, CapabilitySet::DEFAULT), (ProfileSource::Strict, CapabilitySet::STRICT)]
    {
        let (fenced, open) = (ours(source, set), ours(source, set.with(raw)));
        for upper in [0, 1 << 32] {
            assert_eq!(verdict(&fenced, "socket", &[2 | upper, 3 | upper, 1 | upper]), ALLOW);
            for (name, arguments) in closed {
                let arguments = arguments.map(|argument| argument | upper);
                assert_eq!(verdict(&fenced, name, &arguments), errno(libc::EPERM), "{name} {arguments:?}");
                assert_eq!(verdict(&open, name, &arguments), ALLOW, "{name} {arguments:?}");
            }
            for (name, level, option) in options {
                let arguments = [7, level | upper, option | upper];
                assert_eq!(verdict(&fenced, "setsockopt", &arguments), errno(libc::EPERM), "{name}");
                assert_eq!(verdict(&open, "setsockopt", &arguments), ALLOW, "{name}");
            }
            // SOCK_PACKET, which the kernel takes for a packet socket.
            assert_eq!(verdict(&fenced, "socket", &[2 | upper, 10 | upper, 3]), errno(libc::EAFNOSUPPORT));
        }
        assert_eq!(verdict(&fenced, "setsockopt", &[7, 1, 2]), ALLOW);
        let proxy = ours(source, set.with(admin));
        assert_eq!(
            verdict(&proxy, "setsockopt", &[7, 0, 19]),
            ALLOW,
            "who administers the network may answer for others"
        );
        assert_eq!(verdict(&proxy, "setsockopt", &[7, 0, 3]), errno(libc::EPERM));
    }
}

#[test]
fn strict_is_a_part_of_default() {
    let default = ours(ProfileSource::Default, CapabilitySet::DEFAULT);
    let strict = ours(ProfileSource::Strict, CapabilitySet::STRICT);
    for (name, _) in syscalls::X86_64 {
        for arguments in [
            [0; 6],
            [1; 6],
            [2, 1, 0, 0, 0, 0],
            [2, 3, 255, 0, 0, 0],
            [16, 3, 0, 0, 0, 0],
            [u64::MAX; 6],
            [8, 0o10_644, 0, 0, 0, 0],
        ] {
            if verdict(&strict, name, &arguments) == ALLOW {
                assert_eq!(verdict(&default, name, &arguments), ALLOW, "{name} {arguments:?}");
            }
        }
    }
    for name in ["ptrace", "process_vm_writev", "memfd_create", "execveat", "io_setup", "chroot", "sync"] {
        assert_ne!(verdict(&strict, name, &[]), ALLOW, "{name}");
    }
}

#[test]
fn foreign_entries_are_closed() {
    for source in [ProfileSource::Default, ProfileSource::Strict] {
        let filter = ours(source, CapabilitySet::ALL);
        for number in [0, 1, 20, 102, 400, 0xffff_ffff] {
            let verdict = |call| run(&filter.instructions, &call).unwrap().0;
            assert_eq!(verdict(Call::i386(number, [0; 6])), KILL_PROCESS);
            let aarch64 = Call { number, architecture: 0xC000_00B7, arguments: [0; 6] };
            assert_eq!(verdict(aarch64), KILL_PROCESS);
            assert_eq!(verdict(Call::x86_64(number | rules::X32_BIT, [0; 6])), errno(libc::ENOSYS));
        }
        for number in [337, 387, 423, 471, 512, 547, 9999] {
            assert_eq!(run(&filter.instructions, &Call::x86_64(number, [0; 6])).unwrap().0, errno(libc::ENOSYS));
        }
    }
}

/// The default profile on the running kernel, in a thread of its own (a filter binds the calling thread).
#[test]
fn the_running_kernel_agrees() {
    let filter = load_profile(ProfileSource::Default, &options(CapabilitySet::DEFAULT)).unwrap();
    let run_inside = || {
        rustix::thread::set_no_new_privs(true).unwrap();
        crate::sys::seccomp::load(&filter.instructions).unwrap();
        let raw = crate::sys::seccomp::raw_call;
        let check = |name: &str, arguments: [u64; 6], expected: i32| {
            let number = syscalls::number(&syscalls::X86_64, name).unwrap();
            assert_eq!(raw(i64::from(number), arguments), Err(expected), "{name} {arguments:x?}");
        };
        // Verdicts of the filter.
        check("keyctl", [0; 6], libc::EPERM);
        check("mount", [0; 6], libc::EPERM);
        check("clone3", [0; 6], libc::ENOSYS);
        check("io_uring_setup", [0; 6], libc::ENOSYS);
        check("socket", [40, 1, 0, 0, 0, 0], libc::EAFNOSUPPORT);
        check("socket", [38, 5, 0, 0, 0, 0], libc::EAFNOSUPPORT);
        check("socket", [16, 3, 12, 0, 0, 0], libc::EPROTONOSUPPORT);
        check("ioctl", [u64::MAX, 0x5412 | 1 << 32, 0, 0, 0, 0], libc::EPERM);
        check("clone", [0x1000_0011, 0, 0, 0, 0, 0], libc::EPERM);
        check("personality", [0x4_0000, 0, 0, 0, 0, 0], libc::EPERM);
        assert_eq!(raw(9999, [0; 6]), Err(libc::ENOSYS));
        assert_eq!(raw(39 | 0x4000_0000, [0; 6]), Err(libc::ENOSYS));
        // Passed on: the kernel's own answers.
        check("ioctl", [u64::MAX, 0x5401, 0, 0, 0, 0], libc::EBADF);
        check("ptrace", [0x4200, 0, 0, 0, 0, 0], libc::ESRCH);
        assert_eq!(raw(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0, 0]), Ok(0));
        let socket = raw(libc::SYS_socket, [2, 1, 0, 0, 0, 0]).unwrap();
        raw(libc::SYS_close, [socket as u64, 0, 0, 0, 0, 0]).unwrap();
    };
    std::thread::scope(|scope| scope.spawn(run_inside).join().unwrap());
}

/// Prints what the profiles cost; run with `--ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::print_stdout, reason = "a measurement")]
fn measure() {
    let time = |count: u32, action: &dyn Fn()| {
        let start = Instant::now();
        (0..count).for_each(|_| action());
        start.elapsed() / count
    };
    for (source, capabilities) in [
        (ProfileSource::Default, CapabilitySet::DEFAULT),
        (ProfileSource::Default, CapabilitySet::DEFAULT.with(Capability::SYS_ADMIN)),
        (ProfileSource::Strict, CapabilitySet::STRICT),
    ] {
        let options = options(capabilities);
        let filter = compile_profile(source, &options).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let loads: Vec<Duration> = (0..20)
            .map(|_| {
                let load = || {
                    rustix::thread::set_no_new_privs(true).unwrap();
                    let start = Instant::now();
                    crate::sys::seccomp::load(&filter.instructions).unwrap();
                    start.elapsed()
                };
                std::thread::scope(|scope| scope.spawn(load).join().unwrap())
            })
            .collect();
        println!(
            "{source:?} {:?}: {} instructions, compile {:?}, load_profile {:?}, load_cached {:?}, count {:?}, kernel {:?}",
            filter.count(),
            filter.instructions.len(),
            time(100, &|| drop(compile_profile(source, &options))),
            time(100, &|| drop(load_profile(source, &options))),
            time(100, &|| drop(load_cached(directory.path(), source, &options))),
            time(100, &|| assert!(filter.count().allowed > 0)),
            loads.iter().min(),
        );
    }
}
