//! Any message of the wire to JSON and back, by its descriptor: protobuf's JSON with every default written out, as
//! crictl prints it; and the JSON of crictl's pod and container files, with the names of the proto file.

mod print;
mod read;
mod write;

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::Label;
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use serde_json::Value;

use crate::error::{Error, Result};

/// The descriptors of all messages and enums by their full names.
#[derive(Debug)]
pub(crate) struct Registry {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
}

/// What became of a JSON text.
#[derive(Debug)]
pub(crate) struct Parsed<M> {
    pub(crate) message: M,
    /// Paths of keys that the message does not have.
    pub(crate) unknown: Vec<String>,
}

impl Registry {
    pub(crate) fn load() -> Result<Self> {
        let set = FileDescriptorSet::decode(slipway_proto::DESCRIPTOR)
            .map_err(|error| Error::Refused(format!("this program's own descriptors: {error}")))?;
        let mut registry = Self { messages: BTreeMap::new(), enums: BTreeMap::new() };
        for file in set.file {
            let package = format!(".{}", file.package());
            file.message_type.into_iter().for_each(|message| registry.add(&package, message));
            for values in file.enum_type {
                registry.enums.insert(format!("{package}.{}", values.name()), values);
            }
        }
        Ok(registry)
    }

    fn add(&mut self, outer: &str, message: DescriptorProto) {
        let name = format!("{outer}.{}", message.name());
        for nested in &message.nested_type {
            self.add(&name, nested.clone());
        }
        for values in &message.enum_type {
            self.enums.insert(format!("{name}.{}", values.name()), values.clone());
        }
        self.messages.insert(name, message);
    }

    /// A message as JSON. `name` is its full name.
    pub(crate) fn to_json(&self, name: &str, message: &impl Message) -> Result<Value> {
        let bytes = message.encode_to_vec();
        read::message(self, &format!(".{name}"), &bytes)
            .ok_or_else(|| Error::Refused(format!("{name} does not fit its descriptor")))
    }

    /// A message as crictl prints a list of things: its fields in the order of their definition.
    pub(crate) fn to_text(&self, name: &str, message: &impl Message) -> Result<String> {
        Ok(print::message(self, &format!(".{name}"), &self.to_json(name, message)?))
    }

    /// A message's JSON with the names of the proto file, and without what is as it would be anyway.
    pub(crate) fn compact(&self, name: &str, message: &impl Message) -> Result<Value> {
        Ok(print::compact(self, &format!(".{name}"), self.to_json(name, message)?))
    }

    /// A message's own fields that are absent, written out as null.
    pub(crate) fn with_nulls(&self, name: &str, mut value: Value) -> Value {
        if let (Some(object), Some(descriptor)) =
            (value.as_object_mut(), self.messages.get(&format!(".{name}")))
        {
            for field in &descriptor.field {
                object.entry(field.json_name()).or_insert(Value::Null);
            }
        }
        value
    }

    /// A message from the JSON of a file, which is named in what is refused.
    pub(crate) fn parse<M: Message + Default>(
        &self,
        name: &str,
        value: &Value,
        path: &Path,
    ) -> Result<Parsed<M>> {
        let refuse = |reason| Error::Parse { path: path.to_owned(), reason };
        let mut unknown = Vec::new();
        let bytes = write::message(self, &format!(".{name}"), value, &mut unknown).map_err(refuse)?;
        let message = M::decode(bytes.as_slice()).map_err(|error| refuse(error.to_string()))?;
        Ok(Parsed { message, unknown })
    }

    /// The entry message of a map field.
    fn map_entry(&self, field: &FieldDescriptorProto) -> Option<&DescriptorProto> {
        let entry = self.messages.get(field.type_name())?;
        let is_map = entry.options.as_ref().is_some_and(|options| options.map_entry());
        (is_map && field.label() == Label::Repeated).then_some(entry)
    }
}

/// The key and value fields of a map's entry.
fn entry_fields(entry: &DescriptorProto) -> Option<(&FieldDescriptorProto, &FieldDescriptorProto)> {
    let field = |number| entry.field.iter().find(|field| field.number() == number);
    Some((field(1)?, field(2)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use slipway_proto::runtime::v1::{
        ContainerConfig, Int64Value, LinuxContainerConfig, LinuxContainerSecurityContext, PodSandbox,
        PodSandboxState,
    };

    fn parse(value: &Value) -> Result<Parsed<ContainerConfig>> {
        Registry::load().unwrap().parse("runtime.v1.ContainerConfig", value, Path::new("c.json"))
    }

    #[test]
    fn defaults_are_written_and_absent_messages_are_not() {
        let pod = PodSandbox {
            id: "a".into(),
            state: PodSandboxState::SandboxNotready.into(),
            created_at: 5,
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        };
        let json = Registry::load().unwrap().to_json("runtime.v1.PodSandbox", &pod).unwrap();
        let expected = json!({"id": "a", "state": "SANDBOX_NOTREADY", "createdAt": "5", "labels": {"k": "v"},
            "annotations": {}, "runtimeHandler": ""});
        assert_eq!(json, expected);
    }

    #[test]
    fn a_container_file_is_read_by_the_names_of_the_proto_file() {
        let parsed = parse(&json!({
            "metadata": {"name": "web", "attempt": 1}, "command": ["sh"], "envs": [{"key": "A", "value": "b"}],
            "labels": {"x": "y"}, "log_path": "web.log", "mounts": [{"uidMappings": [{"length": 1}]}],
            "linux": {"security_context": {"run_as_user": {"value": 1000}, "supplemental_groups": [1, 2],
                "namespace_options": {"pid": 1}}},
        }));
        let config = parsed.unwrap().message;
        let context = LinuxContainerSecurityContext {
            run_as_user: Some(Int64Value { value: 1000 }),
            supplemental_groups: vec![1, 2],
            ..Default::default()
        };
        let linux = config.linux.unwrap();
        let mut got = linux.security_context.clone().unwrap();
        assert_eq!(got.namespace_options.take().unwrap().pid, 1);
        assert_eq!(
            linux,
            LinuxContainerConfig { security_context: linux.security_context.clone(), resources: None }
        );
        assert_eq!(got, context);
        assert_eq!(config.envs.first().unwrap().value, b"b");
        assert_eq!(config.log_path, "web.log");
        assert_eq!(config.labels.get("x").unwrap(), "y");
    }

    #[test]
    fn what_was_written_reads_back_the_same() {
        let first =
            parse(&json!({"command": ["a", ""], "annotations": {"": ""}, "stdin": true})).unwrap().message;
        let registry = Registry::load().unwrap();
        let json = registry.to_json("runtime.v1.ContainerConfig", &first).unwrap();
        assert_eq!(parse(&json).unwrap().message, first);
    }

    #[test]
    fn unknown_keys_are_told_and_wrong_types_refused_by_their_path() {
        assert_eq!(parse(&json!({"metadata": {"nam": "x"}})).unwrap().unknown, ["metadata.nam"]);
        let refused =
            parse(&json!({"linux": {"resources": {"cpu_shares": "many"}}})).unwrap_err().to_string();
        assert!(refused.contains("linux.resources.cpu_shares"), "{refused}");
        assert!(parse(&json!([])).is_err());
        assert!(parse(&json!({"metadata": {"attempt": -1}})).is_err());
    }
}
