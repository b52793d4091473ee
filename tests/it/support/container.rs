//! Containers as tests wish for them: `world.container("web").with(&["-p", "80"]).sh("httpd -f").start()`.

use super::{Outcome, World, wait_for};

/// A container of busybox without a network, unless told otherwise. Nothing happens before one of the last words.
#[must_use = "create, start, begin or run it"]
pub(crate) struct Wish<'w> {
    world: &'w World,
    flags: Vec<String>,
    image: String,
    words: Vec<String>,
}

impl World {
    /// A container with a name.
    pub(crate) fn container(&self, name: &str) -> Wish<'_> {
        self.nameless().with(&["--name", name])
    }

    /// A container that is removed when it ends.
    pub(crate) fn throwaway(&self) -> Wish<'_> {
        self.nameless().with(&["--rm"])
    }

    /// A container with a name of the program's choice.
    pub(crate) fn nameless(&self) -> Wish<'_> {
        let flags = ["--network", "none"].map(str::to_owned).to_vec();
        Wish { world: self, flags, image: "busybox:latest".to_owned(), words: Vec::new() }
    }

    /// Waits until a container's log has a text so many times.
    #[track_caller]
    pub(crate) fn wait_said(&self, name: &str, text: &str, times: usize) {
        wait_for(&format!("{name} to say {text:?} {times} times"), 30, || {
            (self.bulkhead(&["logs", name]).stdout.matches(text).count() >= times).then_some(())
        });
    }
}

impl Wish<'_> {
    /// More flags.
    pub(crate) fn with(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// What it runs.
    pub(crate) fn program(mut self, words: &[&str]) -> Self {
        self.words = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The shell lines it runs.
    pub(crate) fn sh(self, script: &str) -> Self {
        self.program(&["sh", "-c", script])
    }

    /// It does nothing for longer than any test lasts.
    pub(crate) fn idle(self) -> Self {
        self.program(&["sleep", "600"])
    }

    fn carry_out(&self, verb: &[&str]) -> Outcome {
        let own = self.flags.iter().chain([&self.image]).chain(&self.words).map(String::as_str);
        self.world.bulkhead(&verb.iter().copied().chain(own).collect::<Vec<_>>())
    }

    /// Creates it and returns its id.
    #[track_caller]
    pub(crate) fn create(self) -> String {
        self.carry_out(&["create"]).ok()
    }

    /// Starts it in the background and returns its id.
    #[track_caller]
    pub(crate) fn start(self) -> String {
        self.begin().ok()
    }

    /// Tries to start it in the background.
    pub(crate) fn begin(self) -> Outcome {
        self.carry_out(&["run", "-d"])
    }

    /// Runs it to its end.
    pub(crate) fn run(self) -> Outcome {
        self.carry_out(&["run"])
    }
}
