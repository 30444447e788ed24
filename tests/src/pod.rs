//! A pod in a test: containers from one image, each with a shell script that prints what it finds.

use crate::{Node, Output};
use serde_json::Value;

/// A running pod of a [`Node`].
#[derive(Debug)]
pub struct Pod<'a> {
    node: &'a Node,
    /// Its id.
    pub id: String,
    file: String,
    /// The image that its containers have, unless they ask for another.
    pub image: String,
}

impl<'a> Pod<'a> {
    /// Starts a pod, with `more` merged over its configuration. Its containers have the image `busybox:1`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(node: &'a Node, name: &str, more: Value) -> Self {
        let file = node.pod_file(name, more);
        let id = node.crictl(&["runp", &file]).ok().to_owned();
        Self { node, id, file, image: "busybox:1".into() }
    }

    /// Asks for a container that runs a script, with `more` merged over its configuration.
    #[must_use]
    pub fn create(&self, name: &str, script: &str, more: Value) -> Output {
        let file = self.node.container_file(name, &self.image, script, more);
        self.node.crictl(&["create", &self.id, &file, &self.file])
    }

    /// A started container.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    #[track_caller]
    pub fn run(&self, name: &str, script: &str, more: Value) -> String {
        let id = self.create(name, script, more).ok().to_owned();
        self.node.start_script(&id, script);
        id
    }

    /// The output of a script, both streams joined, which is run to its end and has to exit with 0.
    ///
    /// # Panics
    /// When it does not start, or ends with another code.
    #[must_use]
    #[track_caller]
    pub fn says(&self, name: &str, script: &str, more: Value) -> String {
        let id = self.run(name, script, more);
        let status = self.node.exited(&id);
        let logs = self.node.crictl(&["logs", &id]);
        assert_eq!(status["exitCode"], 0, "{status:#}\n{logs:#?}\n{}", self.node.log());
        logs.stdout + &logs.stderr
    }

    /// The error of a container that can't be created or started; it is removed.
    ///
    /// # Panics
    /// When it starts.
    #[must_use]
    #[track_caller]
    pub fn refuses(&self, name: &str, script: &str, more: Value) -> String {
        let created = self.create(name, script, more);
        if created.status != 0 {
            return created.stderr;
        }
        let id = created.ok().to_owned();
        let error = self.node.crictl(&["start", &id]).error().to_owned();
        let _ = self.node.crictl(&["rm", "-f", &id]).ok();
        error
    }

    /// The output of a script in a running container.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn exec(&self, container: &str, script: &str) -> String {
        self.node.crictl(&["exec", "-s", container, "sh", "-c", script]).ok().to_owned()
    }
}
