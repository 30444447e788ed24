//! Verbose status of pods and containers: facts that tools read beyond the CRI's fields, under the keys and in the shape
//! that containerd's `info` has them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DescriptorPool, DynamicMessage, MapKey, Value as Field};
use serde_json::{Map, Value, json};
use slipway_proto::runtime::v1 as cri;
use slipway_runtime::{Document, Interface, SandboxConfig};

use crate::annotations;
use crate::node::{Container, Node, Pod};

const CONTAINER_CONFIG: &str = "runtime.v1.ContainerConfig";
const POD_CONFIG: &str = "runtime.v1.PodSandboxConfig";

/// A container's `info`: `pid`, `config`, `runtimeSpec`, `image` and more.
pub(crate) fn container(
    node: &Node,
    container: &Container,
    config: &cri::ContainerConfig,
    pid: u32,
) -> BTreeMap<String, String> {
    let request = node.runtime.container_request(&container.record.id).ok();
    info(&json!({
        "sandboxID": container.record.pod,
        "pid": pid,
        "removing": node.runtime.is_container_removed(&container.record.id),
        "phase": node.phase(container),
        "image": config.image.clone().unwrap_or_default().image,
        "imageID": container.record.image_id,
        "config": message(CONTAINER_CONFIG, config),
        "runtimeSpec": specification(node, container),
        "rootfs": request.as_ref().map(|request| &request.rootfs),
        "user": request.as_ref().map(|request| &request.user),
    }))
}

/// A container's whole OCI specification. Its sets of capabilities are in order, so that two answers are equal.
pub(crate) fn specification(node: &Node, container: &Container) -> Value {
    let spec = node.runtime.container_spec(&container.record.id).ok();
    let mut told = json!(spec);
    let sets = told.pointer_mut("/process/capabilities").and_then(Value::as_object_mut);
    for set in sets.into_iter().flat_map(Map::values_mut).filter_map(Value::as_array_mut) {
        set.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
    }
    told
}

/// A pod's `info`: `pid`, `config`, `runtimeSpec`, `cniResult` and more.
pub(crate) fn pod(
    node: &Node,
    pod: &Pod,
    config: &cri::PodSandboxConfig,
    ready: bool,
) -> BTreeMap<String, String> {
    let status = node.runtime.sandbox_status(&pod.record.id).ok();
    let details = node.runtime.sandbox_details(&pod.record.id).ok();
    let netns = status.as_ref().and_then(|status| status.netns.as_ref()).filter(|_| ready);
    let interface = details.as_ref().and_then(|details| details.interface.as_ref()).filter(|_| ready);
    let spec = details.as_ref().map(|details| {
        let mut spec = details.spec.clone();
        spec.set_annotations(Some(annotations::of_pod(&pod.record.id, config)));
        spec
    });
    // The document is the request, which is not shown twice.
    let shown = |config: &SandboxConfig| SandboxConfig { document: Document::default(), ..config.clone() };
    let configuration = status.as_ref().map(|status| shown(&status.config));
    let mut told = json!({
        "sandboxID": pod.record.id,
        "phase": status.as_ref().map(|status| status.state.name()),
        "addresses": if ready { pod.record.addresses.as_slice() } else { &[] },
        "networkNamespace": netns,
        "netNamespaceClosed": !ready,
        "configuration": configuration,
        "config": message(POD_CONFIG, config),
        "runtimeHandler": pod.record.request.0.runtime_handler,
        "runtimeSpec": spec,
        "cniResult": interface.map(|interface| network(interface, netns)),
    });
    // Without a process in the pod's namespaces the key is absent: 0 would be read as a process.
    if let (Some(object), Some(pid)) = (told.as_object_mut(), details.and_then(|details| details.pid)) {
        object.insert("pid".to_owned(), pid.into());
    }
    info(&told)
}

fn info(value: &Value) -> BTreeMap<String, String> {
    BTreeMap::from([("info".to_owned(), value.to_string())])
}

/// The result of a CNI plugin, as containerd's go-cni writes it.
fn network(interface: &Interface, netns: Option<&std::path::PathBuf>) -> Value {
    let addresses = interface.addresses.iter();
    let configs: Vec<_> = addresses.map(|(ip, gateway)| json!({ "IP": ip, "Gateway": gateway })).collect();
    let link = json!({ "IPConfigs": configs, "Mac": interface.hardware, "Sandbox": netns });
    let mut interfaces = Map::new();
    interfaces.insert(interface.name.clone(), link);
    json!({ "Interfaces": interfaces, "DNS": [], "Routes": [] })
}

/// A message as Go's encoding/json writes the CRI's types: the names of the proto file, numbers for enums, base64 for
/// bytes, and nothing that is as it would be anyway. Null where the descriptors of this program do not know it.
fn message(name: &str, message: &impl prost::Message) -> Value {
    let pool = DescriptorPool::decode(slipway_proto::DESCRIPTOR).ok();
    let descriptor = pool.and_then(|pool| pool.get_message_by_name(name));
    let read =
        descriptor.and_then(|found| DynamicMessage::decode(found, message.encode_to_vec().as_slice()).ok());
    read.map_or(Value::Null, |read| object(&read))
}

/// The depth of the recursion is that of the CRI's types, none of which contains itself.
fn object(message: &DynamicMessage) -> Value {
    let fields = message.fields().map(|(field, value)| (field.name().to_owned(), plain(value)));
    Value::Object(fields.collect())
}

fn plain(field: &Field) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) | Field::EnumNumber(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.as_str().into(),
        Field::Bytes(value) => STANDARD.encode(value).into(),
        Field::Message(value) => object(value),
        Field::List(values) => values.iter().map(plain).collect(),
        Field::Map(values) => {
            let entries = values.iter().map(|(key, value)| (shown(key), plain(value)));
            Value::Object(entries.collect())
        }
    }
}

fn shown(key: &MapKey) -> String {
    match key {
        MapKey::Bool(value) => value.to_string(),
        MapKey::I32(value) => value.to_string(),
        MapKey::I64(value) => value.to_string(),
        MapKey::U32(value) => value.to_string(),
        MapKey::U64(value) => value.to_string(),
        MapKey::String(value) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_as_go_writes_it() {
        let context = cri::LinuxContainerSecurityContext {
            run_as_user: Some(cri::Int64Value { value: 1000 }),
            namespace_options: Some(cri::NamespaceOption::default()),
            ..Default::default()
        };
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "web".into(), attempt: 0 }),
            envs: vec![cri::KeyValue { key: "A".into(), value: vec![0xff] }],
            labels: [("tier".to_owned(), "front".to_owned())].into(),
            log_path: "web/0.log".into(),
            stop_signal: 15,
            linux: Some(cri::LinuxContainerConfig { security_context: Some(context), resources: None }),
            ..Default::default()
        };
        assert_eq!(
            message(CONTAINER_CONFIG, &config),
            json!({
                "metadata": {"name": "web"},
                "envs": [{"key": "A", "value": "/w=="}],
                "labels": {"tier": "front"},
                "log_path": "web/0.log",
                "stop_signal": 15,
                "linux": {"security_context": {"namespace_options": {}, "run_as_user": {"value": 1000}}},
            })
        );
        assert_eq!(message(POD_CONFIG, &cri::PodSandboxConfig::default()), json!({}));
    }

    #[test]
    fn a_link_is_written_as_a_network_plugin_would() {
        let interface = Interface {
            name: "eth0".into(),
            hardware: "0a:58:0a:58:00:02".into(),
            addresses: vec![("10.88.0.2".parse().unwrap(), "10.88.0.1".parse().ok())],
        };
        let told = network(&interface, Some(&"/run/netns/a".into()));
        let link = &told["Interfaces"]["eth0"];
        assert_eq!(link["IPConfigs"], json!([{"IP": "10.88.0.2", "Gateway": "10.88.0.1"}]));
        assert_eq!((&link["Mac"], &link["Sandbox"]), (&json!("0a:58:0a:58:00:02"), &json!("/run/netns/a")));
    }
}
