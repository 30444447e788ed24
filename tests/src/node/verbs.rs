//! The verbs of a node that tests use: the real crictl, Slipway's own command line, images, pods and containers.

use super::Node;
use crate::output::Output;
use crate::wait;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

impl Node {
    /// The real crictl.
    #[must_use]
    pub fn crictl(&self, arguments: &[&str]) -> Output {
        Output::of(&mut self.crictl_command(arguments))
    }

    /// The real crictl, to be started by the caller.
    #[must_use]
    pub fn crictl_command(&self, arguments: &[&str]) -> Command {
        let endpoint = format!("unix://{}", self.socket().display());
        let mut command = Command::new(crate::folder("SLIPWAY_PEERS").join("crictl"));
        command
            .args(["--config", "/dev/null", "--timeout", "60s", "--runtime-endpoint", &endpoint])
            .args(["--image-endpoint", &endpoint])
            .args(arguments);
        command
    }

    /// Slipway's own command line.
    #[must_use]
    pub fn slipway(&self, arguments: &[&str]) -> Output {
        Output::of(self.command().args(arguments))
    }

    /// Slipway's own command line, to be started by the caller.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(crate::folder("SLIPWAY_PROGRAMS").join("slipway"));
        command.arg("--address").arg(format!("unix://{}", self.socket().display()));
        command
    }

    /// Builds the busybox image, with more Dockerfile lines, under a name.
    ///
    /// # Panics
    /// When the build fails.
    pub fn build(&self, name: &str, more: &str) {
        let context = tempfile::tempdir_in(self.directory.path()).expect("a build context");
        crate::busybox::context(context.path(), more);
        let output = self.slipway(&["build", "-t", name, &context.path().display().to_string()]);
        assert_eq!(output.status, 0, "{output:#?}\n{}", self.log());
    }

    /// Writes a pod's configuration for crictl; `more` is merged over it.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn pod_file(&self, name: &str, more: Value) -> String {
        let mut config = json!({
            "metadata": {"name": name, "uid": format!("uid-{name}"), "namespace": "test", "attempt": 0},
            "log_directory": self.path(format!("logs/{name}")),
            "linux": {"security_context": {"namespace_options": {"network": 2, "pid": 1}}},
        });
        merge(&mut config, more);
        self.write_json(&format!("{name}.pod.json"), &config)
    }

    /// Writes a container's configuration for crictl; `more` is merged over it.
    ///
    /// # Panics
    /// When it can't be written.
    #[must_use]
    pub fn container_file(&self, name: &str, image: &str, script: &str, more: Value) -> String {
        let mut config = json!({
            "metadata": {"name": name, "attempt": 0},
            "image": {"image": image},
            "command": ["sh", "-c", script],
            "log_path": format!("{name}.log"),
            "linux": {},
        });
        merge(&mut config, more);
        self.write_json(&format!("{name}.container.json"), &config)
    }

    fn write_json(&self, name: &str, value: &Value) -> String {
        let path = self.path(name);
        std::fs::write(&path, value.to_string()).expect("a configuration is written");
        path.display().to_string()
    }

    /// Starts a pod and returns its id.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn pod(&self, name: &str, more: Value) -> String {
        self.crictl(&["runp", &self.pod_file(name, more)]).ok().to_owned()
    }

    /// Creates and starts a container that runs a shell script in a pod of [`Node::pod`], and returns its id.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn container(&self, pod: &str, pod_name: &str, name: &str, script: &str) -> String {
        let container = self.container_file(name, "busybox:1", script, json!({}));
        let pod_file = self.path(format!("{pod_name}.pod.json")).display().to_string();
        let id = self.crictl(&["create", pod, &container, &pod_file]).ok().to_owned();
        self.start_script(&id, script);
        id
    }

    /// Starts a container whose command is this shell script. One that ends in `exec sleep` has done all else by then.
    ///
    /// # Panics
    /// When it does not start, or does not get there.
    #[track_caller]
    pub fn start_script(&self, container: &str, script: &str) {
        let _ = self.crictl(&["start", container]).ok();
        if !script.contains("exec sleep ") {
            return;
        }
        let info = self.crictl(&["inspect", container]).json()["info"].clone();
        let process = format!("/proc/{}/cmdline", info["pid"]);
        wait("the end of the container's script", || {
            // A process that has ended already fails the test's own assertions, which say more.
            std::fs::read(&process).map_or(true, |line| line.is_empty() || line.starts_with(b"sleep\0"))
        });
    }

    /// A container's `status` as crictl inspects it.
    ///
    /// # Panics
    /// When it can't be inspected.
    #[must_use]
    pub fn status(&self, container: &str) -> Value {
        self.crictl(&["inspect", container]).json()["status"].clone()
    }

    /// Waits until a container has ended and returns its status.
    ///
    /// # Panics
    /// When it does not end in a minute.
    #[must_use]
    pub fn exited(&self, container: &str) -> Value {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let status = self.status(container);
            if status["state"] == "CONTAINER_EXITED" {
                return status;
            }
            assert!(Instant::now() < deadline, "{container} does not end: {status:#}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
