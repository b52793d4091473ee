//! Repositories of tests, served to a world by git's own daemon.

use super::{World, host, wait_for};
use std::path::PathBuf;
use std::process::Child;

/// A directory of repositories behind `git://127.0.0.1/`; the daemon ends with this value.
pub(crate) struct Served {
    directory: PathBuf,
    daemon: Option<Child>,
}

impl Served {
    /// Serves what lies, and will lie, in a directory of the world.
    pub(crate) fn new(world: &World, name: &str) -> Self {
        let directory = world.path(name);
        std::fs::create_dir_all(&directory).unwrap();
        let netns = format!("--net=/run/netns/{}", world.netns.as_deref().unwrap());
        let base = format!("--base-path={}", directory.display());
        let daemon = format!("{}/git-daemon", host("git", &["--exec-path"]).ok().trim());
        let daemon = std::process::Command::new("nsenter")
            .args([&netns, "--", &daemon, "--export-all", "--reuseaddr", "--listen=127.0.0.1", &base])
            .spawn()
            .unwrap();
        let served = Self { directory, daemon: Some(daemon) };
        wait_for("the server of the repositories", 10, || {
            let listens = world.host("sh", &["-c", "ss -ltn | grep -q :9418"]);
            (listens.code == 0).then_some(())
        });
        served
    }

    /// Runs git in a repository, at a known time.
    pub(crate) fn git(&self, repository: &str, arguments: &[&str]) -> String {
        let place = self.directory.join(repository);
        let place = place.to_str().unwrap();
        let settings = ["-c", "user.name=n", "-c", "user.email=e@x", "-c", "init.defaultBranch=main"];
        let times = ["GIT_AUTHOR_DATE=@1000000000 +0000", "GIT_COMMITTER_DATE=@1000000000 +0000", "git", "-C", place];
        host("env", &[&times[..], &settings, arguments].concat()).ok()
    }

    /// Writes a file of a repository and commits it; returns the commit.
    pub(crate) fn commit(&self, repository: &str, files: &[(&str, &str)]) -> String {
        let place = self.directory.join(repository);
        if !place.exists() {
            std::fs::create_dir_all(&place).unwrap();
            self.git(repository, &["init", "-q"]);
        }
        for (name, text) in files {
            let path = place.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.git(repository, &["add", "-A"]);
        self.git(repository, &["commit", "-qm", "more"]);
        self.git(repository, &["rev-parse", "HEAD"])
    }

    /// Ends the daemon.
    pub(crate) fn end(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}
