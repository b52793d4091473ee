//! Build contexts of tests.

use super::{Outcome, World};

/// A directory with a Dockerfile, built as `NAME:1`.
pub(crate) struct Context<'a> {
    world: &'a World,
    name: String,
}

impl<'a> Context<'a> {
    pub(crate) fn new(world: &'a World, name: &str, dockerfile: &str, files: &[(&str, &str)]) -> Self {
        world.write(&format!("{name}/Dockerfile"), dockerfile);
        for (path, text) in files {
            world.write(&format!("{name}/{path}"), text);
        }
        Self { world, name: name.to_owned() }
    }

    pub(crate) fn build(&self, flags: &[&str]) -> Outcome {
        let directory = self.world.path(&self.name);
        let tag = format!("{}:1", self.name);
        let mut arguments = vec!["build", "-t", &tag];
        arguments.extend(flags);
        arguments.push(directory.to_str().unwrap());
        self.world.bulkhead(&arguments)
    }

    pub(crate) fn run(&self, script: &str) -> String {
        self.world.ok(&["run", "--rm", "--network", "none", &format!("{}:1", self.name), "sh", "-c", script])
    }

    pub(crate) fn id(&self) -> String {
        self.world.ok(&["image", "inspect", "--format", "{{.Id}}", &format!("{}:1", self.name)])
    }
}
