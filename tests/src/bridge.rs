//! Pods on the built-in bridge, as tests make and look at them.

use crate::Node;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A pod on the bridge.
#[derive(Debug)]
pub struct BridgePod {
    /// Its id.
    pub id: String,
    /// Its addresses, one a subnet.
    pub addresses: Vec<String>,
    /// Its network namespace.
    pub netns: PathBuf,
}

/// A TCP port mapping.
#[must_use]
pub fn tcp(host: u16, inside: u16) -> Value {
    json!({"protocol": 0, "host_port": host, "container_port": inside})
}

/// A UDP port mapping.
#[must_use]
pub fn udp(host: u16, inside: u16) -> Value {
    json!({"protocol": 1, "host_port": host, "container_port": inside})
}

/// A port mapping of one of the node's addresses.
#[must_use]
pub fn at(ip: &str, mut mapping: Value) -> Value {
    mapping["host_ip"] = ip.into();
    mapping
}

impl Node {
    /// The configuration file of a pod on the bridge with these port mappings.
    #[must_use]
    pub fn bridge_pod_file(&self, name: &str, ports: &[Value]) -> String {
        let more = json!({
            "hostname": name,
            "port_mappings": ports,
            "linux": {"security_context": {"namespace_options": {"network": 0}}},
        });
        self.pod_file(name, more)
    }

    /// Starts a pod on the bridge.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    #[must_use]
    pub fn bridge_pod(&self, name: &str, ports: &[Value]) -> BridgePod {
        let id = self.crictl(&["runp", &self.bridge_pod_file(name, ports)]).ok().to_owned();
        let network = self.crictl(&["inspectp", &id]).json()["status"]["network"].clone();
        let additional = network["additionalIps"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().expect("an address").to_owned();
        let addresses =
            std::iter::once(text(&network["ip"])).chain(additional.iter().map(|item| text(&item["ip"])));
        BridgePod { addresses: addresses.collect(), netns: self.path(format!("run/netns/{id}")), id }
    }

    /// The error of a pod on the bridge that must not start.
    ///
    /// # Panics
    /// When it starts.
    #[track_caller]
    #[must_use]
    pub fn refused_pod(&self, name: &str, ports: &[Value]) -> String {
        self.crictl(&["runp", &self.bridge_pod_file(name, ports)]).error().to_owned()
    }

    /// Stops and removes a pod.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn remove_pod(&self, id: &str) {
        let _ = self.crictl(&["stopp", id]).ok();
        let _ = self.crictl(&["rmp", id]).ok();
    }

    /// The daemon's NetworkReady condition: whether it is ready, the reason in one word, and the message.
    ///
    /// # Panics
    /// When it says nothing.
    #[track_caller]
    #[must_use]
    pub fn network_ready(&self) -> (bool, String, String) {
        let info = self.crictl(&["info"]).json();
        let conditions = info["status"]["conditions"].as_array().expect("conditions").clone();
        let network = conditions.iter().find(|one| one["type"] == "NetworkReady").expect("NetworkReady");
        let text = |key: &str| network[key].as_str().unwrap_or_default().to_owned();
        (network["status"] == true, text("reason"), text("message"))
    }

    /// Waits until as many addresses are in use.
    ///
    /// # Panics
    /// When it does not come to that.
    #[track_caller]
    pub fn await_addresses(&self, count: usize) {
        let in_use = || {
            let names = std::fs::read_dir(self.path("lib/addresses")).expect("the addresses are listed");
            let names = names.map(|entry| entry.expect("an address").file_name());
            names.filter(|name| !name.to_string_lossy().starts_with('.')).count()
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while in_use() != count {
            assert!(Instant::now() < deadline, "{} addresses are in use, not {count}", in_use());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
