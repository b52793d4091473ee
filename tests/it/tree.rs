//! What a container sees of the file system, by real launches through the sandbox's own interface.

use crate::support::bundle::*;
use bulkhead::sandbox::*;
use std::path::Path;

#[test]
fn dev_has_what_programs_expect_and_no_more() {
    alone("tree::dev_has_what_programs_expect_and_no_more", || {
        let root = Box::new();
        let (code, text) = root.sh("ls /dev; stat -c '%n %u %g %t:%T %a' /dev/null /dev/tty /dev/urandom; head -c 4 /dev/zero | wc -c; \
             echo x > /dev/null && mknod /tmp/n c 1 3 || echo refused; test -e /dev/ptmx && echo ptmx; touch /dev/shm/x && echo shm; \
             umount /dev/shm || echo kept; mount -t tmpfs x /tmp || echo nomount");
        assert_eq!(code, 0, "{text}");
        assert!(
            text.starts_with(
                "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
            ),
            "{text}"
        );
        assert!(text.contains("/dev/null 0 0 1:3 666\n/dev/tty 0 0 5:0 666\n/dev/urandom 0 0 1:9 666\n4\n"), "{text}");
        assert!(
            text.contains("refused\nptmx\nshm\n") && text.contains("kept\n") && text.contains("nomount\n"),
            "{text}"
        );
    });
}

#[test]
fn masks_and_read_only_paths_hold() {
    alone("tree::masks_and_read_only_paths_hold", || {
        let root = Box::new();
        let (_, text) =
            root.sh("cat /proc/keys | wc -c; ls /sys/firmware | wc -l; ls /proc/scsi 2>/dev/null | wc -l; \
             echo 1 > /proc/sys/kernel/hostname || echo ro1; echo b > /proc/sysrq-trigger || echo ro2; \
             echo x > /sys/kernel/uevent_helper || echo ro3; ls /sys/fs/cgroup; cat /sys/fs/cgroup/pids/pids.max; \
             echo 9 > /sys/fs/cgroup/pids/pids.max || echo ro4");
        assert!(text.starts_with("0\n0\n0\n"), "{text}");
        for line in ["ro1", "ro2", "ro3", "ro4"] {
            assert!(text.contains(line), "{line}: {text}");
        }
        if Path::new("/sys/fs/cgroup/pids").exists() {
            assert!(text.contains("512\n") && text.contains("memory\n"), "{text}");
        }
    });
}

#[test]
fn writes_are_stored_with_plain_ids() {
    alone("tree::writes_are_stored_with_plain_ids", || {
        use std::os::unix::fs::MetadataExt;
        let root = Box::new();
        let (code, text) =
            root.sh("touch /a && chown 33:44 /a && touch /home/app/b && chown 65535 /plain && rm /dir -r");
        assert_eq!(code, 0, "{text}");
        let ids =
            |part: &str| std::fs::symlink_metadata(root.path("upper").join(part)).map(|m| (m.uid(), m.gid())).unwrap();
        assert_eq!((ids("a"), ids("home/app/b"), ids("plain"), ids("dir")), ((33, 44), (0, 0), (65535, 0), (0, 0)));
    });
}

#[test]
fn mounts_show_the_right_ids_and_flags() {
    alone("tree::mounts_show_the_right_ids_and_flags", || {
        use std::os::unix::fs::MetadataExt;
        let root = Box::new();
        let vol = root.path("vol");
        put(&vol.join("seven"), "7\n");
        std::os::unix::fs::chown(vol.join("seven"), Some(7), Some(8)).unwrap();
        let owned = root.path("owned");
        std::fs::create_dir(&owned).unwrap();
        std::os::unix::fs::chown(&owned, Some(1234), Some(1235)).unwrap();
        let bind = |path: &Path, target: &str, readonly: bool, ids: BindIds| Mount {
            target: target.into(),
            source: MountSource::Bind { path: path.to_owned(), recursive: true, ids },
            readonly,
        };
        let mut bundle = root.bundle(&["sh", "-c", "stat -c '%u:%g' /vol/seven; touch /vol/new; touch /ro/x || echo ro; \
            stat -c '%u' /own; touch /own/mine; stat -c '%a' /t; touch /t/x; mkdir -p /t/y; cp /bin/busybox /t/true; /t/true || echo noexec; stat -c '%u' /hosts; cat /hosts; ls /deep/er"]);
        let hosts = root.path("hosts");
        put(&hosts, "hosts file\n");
        bundle.mounts = vec![
            bind(&vol, "/vol", false, BindIds::Same),
            bind(&vol, "/ro", true, BindIds::Same),
            bind(&owned, "/own", false, BindIds::Owner { uid: 1234, gid: 1235 }),
            Mount {
                target: "/t".into(),
                source: MountSource::Tmpfs { options: vec!["size=4m".into(), "mode=1770".into()] },
                readonly: false,
            },
            Mount { target: "/hosts".into(), source: MountSource::OwnFile { path: hosts, of: None }, readonly: false },
            bind(&vol, "/deep/er", false, BindIds::Same),
        ];
        let (code, text) = run(&bundle);
        assert_eq!(code, 0, "{text}");
        assert!(
            text.starts_with("7:8\n")
                && text.contains("ro\n0\n1770\n")
                && text.contains("noexec\n0\nhosts file\nnew\nseven\n"),
            "{text}"
        );
        assert_eq!(std::fs::metadata(vol.join("new")).unwrap().uid(), 0);
        assert_eq!(std::fs::metadata(owned.join("mine")).unwrap().uid(), 1234);
        for (target, why) in [
            ("/proc/x", "nothing may be mounted"),
            ("/sys/x", "nothing may"),
            ("/../x", "absolute path"),
            ("x", "absolute path"),
            ("/link/x", "leads it to"),
        ] {
            let mut bundle = root.bundle(&["true"]);
            let _ = std::os::unix::fs::symlink("/proc", root.lower("link"));
            bundle.mounts = vec![bind(&vol, target, false, BindIds::Same)];
            let (code, text) = run(&bundle);
            assert!(code == -1 && text.contains(why), "{target}: {text}");
        }
        let mut bundle = root.bundle(&["true"]);
        bundle.mounts = vec![bind(Path::new("/proc"), "/x", false, BindIds::Same)];
        let (code, text) = run(&bundle);
        assert!(code == -1 && text.contains("proc file system") && text.contains("--userns=host"), "{text}");
    });
}

#[test]
fn a_linked_proc_is_refused() {
    alone("tree::a_linked_proc_is_refused", || {
        for name in ["proc", "sys", "dev"] {
            let root = Box::new();
            std::os::unix::fs::symlink("/tmp", root.lower(name)).unwrap();
            let (code, text) = root.sh("true");
            assert!(code == -1 && text.contains("not a link"), "{name}: {text}");
        }
    });
}

#[test]
fn a_read_only_root_refuses_writes_but_not_in_volumes() {
    alone("tree::a_read_only_root_refuses_writes_but_not_in_volumes", || {
        let root = Box::new();
        let mut bundle = root.bundle(&[
            "sh",
            "-c",
            "touch /x 2>/dev/null || echo ro; touch /vol/x && echo rw; touch /dev/shm/x && echo shm; test -d /made/here && echo made",
        ]);
        bundle.root_readonly = true;
        bundle.process.cwd = "/made/here".into();
        let source = MountSource::Bind { path: root.path("vol"), recursive: false, ids: BindIds::Same };
        bundle.mounts = vec![Mount { target: "/vol".into(), source, readonly: false }];
        let (code, text) = run(&bundle);
        assert_eq!((code, text.as_str()), (0, "ro\nrw\nshm\nmade\n"));
    });
}

#[test]
fn landlock_alone_keeps_a_read_only_root() {
    use bulkhead::security::landlock::{RuleInput, RuleMount, rule_set};
    let mounts = vec![RuleMount { target: "/vol".into(), readonly: false }];
    let rules = rule_set(&RuleInput { abi: 7, root_readonly: true, mounts, ..RuleInput::default() });
    let writes = bulkhead::security::landlock::FsRights::from(landlock::AccessFs::WriteFile);
    let at = |path: &str| rules.rules.iter().find(|rule| rule.path == path).map(|rule| rule.rights.intersects(writes));
    assert_eq!((at("/"), at("/vol"), at("/dev")), (Some(false), Some(true), Some(true)));
}

#[test]
fn a_working_directory_never_leads_out() {
    alone("tree::a_working_directory_never_leads_out", || {
        let root = Box::new();
        for number in 3..40 {
            let mut bundle = root.bundle(&["pwd"]);
            bundle.process.cwd = format!("/proc/self/fd/{number}");
            // The magic link is not followed, or there is no such descriptor any more: the directory of the host that a
            // number may have stood for is never entered.
            let (code, text) = run(&bundle);
            let said = |why: &str| format!("chdir to cwd (\"/proc/self/fd/{number}\"): {why}");
            let refusals = [said("symbolic link loop"), said("no such file or directory")];
            assert!(code == -1 && refusals.contains(&text), "{number}: {text}");
        }
        let mut bundle = root.bundle(&["sh", "-c", "pwd; stat -c %u ."]);
        bundle.process.cwd = "/made/for/me".into();
        assert_eq!(run(&bundle), (0, "/made/for/me\n0\n".to_owned()));
    });
}

#[test]
fn sys_admin_cannot_undo_the_mounts() {
    alone("tree::sys_admin_cannot_undo_the_mounts", || {
        let root = Box::new();
        let mut bundle = root.bundle(&["sh", "-c", "id -u; mount -o remount,bind,dev / || echo kept1; mount -o remount,bind,rw /ro || echo kept2; umount /ro || echo kept3; mount -t tmpfs x /tmp && echo mounted; touch /x && echo w"]);
        bundle.hardening.capabilities.0 |= 1 << 21;
        let source = MountSource::Bind { path: root.path("vol"), recursive: false, ids: BindIds::Same };
        bundle.mounts = vec![Mount { target: "/ro".into(), source, readonly: true }];
        let (code, text) = run(&bundle);
        assert!(code == 0, "{text}");
        for word in ["kept1", "kept2", "kept3", "mounted", "w\n"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    });
}
