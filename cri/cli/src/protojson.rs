//! Messages of the wire as JSON and back, by their descriptors: protobuf's JSON with every default written out, as crictl
//! prints it, and the JSON of crictl's pod and container files.

mod json;
mod parse;
mod text;

use std::path::Path;

use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use crate::error::{Error, Result};

/// The descriptors of all messages.
#[derive(Debug)]
pub(crate) struct Registry {
    pool: DescriptorPool,
}

/// A message that was read from a JSON text.
#[derive(Debug)]
pub(crate) struct Parsed<M> {
    pub(crate) message: M,
    /// Paths of keys that the message does not have.
    pub(crate) unknown: Vec<String>,
}

impl Registry {
    pub(crate) fn load() -> Result<Self> {
        let pool = DescriptorPool::decode(slipway_proto::DESCRIPTOR);
        Ok(Self {
            pool: pool.map_err(|error| Error::Refused(format!("this program's own descriptors: {error}")))?,
        })
    }

    fn descriptor<M: Name>(&self) -> Result<MessageDescriptor> {
        let name = M::full_name();
        let found = self.pool.get_message_by_name(&name);
        found.ok_or_else(|| Error::Refused(format!("this program has no descriptor of {name}")))
    }

    fn reflect<M: Name>(&self, message: &M) -> Result<DynamicMessage> {
        let decoded = DynamicMessage::decode(self.descriptor::<M>()?, message.encode_to_vec().as_slice());
        decoded.map_err(|error| {
            Error::Refused(format!("{} does not fit its descriptor: {error}", M::full_name()))
        })
    }

    /// A message as JSON.
    pub(crate) fn to_json<M: Name>(&self, message: &M) -> Result<Value> {
        Ok(json::message(&self.reflect(message)?))
    }

    /// A message as JSON in which its own absent fields are null.
    pub(crate) fn to_json_with_nulls<M: Name>(&self, message: &M) -> Result<Value> {
        let mut value = self.to_json(message)?;
        if let Some(object) = value.as_object_mut() {
            for field in self.descriptor::<M>()?.fields() {
                object.entry(field.json_name()).or_insert(Value::Null);
            }
        }
        Ok(value)
    }

    /// A message as the text of a list: its fields in the order of their definition.
    pub(crate) fn to_text<M: Name>(&self, message: &M) -> Result<String> {
        Ok(text::message(&self.reflect(message)?))
    }

    /// A message as JSON with the names of the proto file, without the fields that have their defaults.
    pub(crate) fn to_compact_json<M: Name>(&self, message: &M) -> Result<Value> {
        Ok(json::compact(&self.reflect(message)?))
    }

    /// A message from the JSON of a file, which errors name.
    pub(crate) fn parse<M: Name + Default>(&self, value: &Value, path: &Path) -> Result<Parsed<M>> {
        let refuse = |reason| Error::Parse { path: path.to_owned(), reason };
        let mut unknown = Vec::new();
        let parsed = parse::message(&self.descriptor::<M>()?, value, &mut unknown).map_err(refuse)?;
        let message = parsed.transcode_to().map_err(|error| refuse(error.to_string()))?;
        Ok(Parsed { message, unknown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;
    use slipway_proto::runtime::v1::{
        ContainerConfig, Int64Value, LinuxContainerConfig, LinuxContainerSecurityContext,
        ListPodSandboxResponse, PodSandbox, PodSandboxState, RuntimeHandler, RuntimeHandlerFeatures,
    };

    fn parse(value: &Value) -> Result<Parsed<ContainerConfig>> {
        Registry::load().unwrap().parse(value, Path::new("c.json"))
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
        let json = Registry::load().unwrap().to_json(&pod).unwrap();
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
        let json = registry.to_json(&first).unwrap();
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

    #[test]
    fn fields_stand_in_the_order_of_their_definition() {
        let pod = PodSandbox {
            id: "a".into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        };
        let list = ListPodSandboxResponse { items: vec![pod] };
        let text = Registry::load().unwrap().to_text(&list).unwrap();
        let expected = "{\n  \"items\": [\n    {\n      \"id\": \"a\",\n      \"state\": \"SANDBOX_READY\",\n      \"createdAt\": \"0\",\n      \"labels\": {\n        \"k\": \"v\"\n      },\n      \"annotations\": {},\n      \"runtimeHandler\": \"\"\n    }\n  ]\n}";
        assert_eq!(text, expected);
    }

    #[test]
    fn compact_json_leaves_defaults_out() {
        let features = Some(RuntimeHandlerFeatures { user_namespaces: true, ..Default::default() });
        let handler = RuntimeHandler { name: String::new(), features };
        let compact = Registry::load().unwrap().to_compact_json(&handler).unwrap();
        assert_eq!(compact, serde_json::json!({"features": {"user_namespaces": true}}));
    }

    #[test]
    fn maps_are_in_the_order_of_their_keys() {
        let labels = ["d", "a", "c", "b", "e"].map(|key| (key.to_owned(), key.to_owned()));
        let pod = PodSandbox { labels: labels.into(), ..Default::default() };
        let text = Registry::load().unwrap().to_text(&pod).unwrap();
        let order: Vec<usize> =
            ["a", "b", "c", "d", "e"].iter().map(|key| text.find(&format!("\"{key}\":")).unwrap()).collect();
        assert!(order.is_sorted(), "{text}");
    }

    #[test]
    fn numbers_out_of_range_and_enums_without_a_name_are_refused() {
        let attempt = |number: Value| parse(&json!({"metadata": {"attempt": number}}));
        assert_eq!(attempt(json!(4_294_967_295_u32)).unwrap().message.metadata.unwrap().attempt, u32::MAX);
        assert!(attempt(json!(4_294_967_296_u64)).is_err());
        assert!(attempt(json!(1.5)).is_err());
        let refused = parse(&json!({"linux": {"security_context": {"namespace_options": {"pid": "PODS"}}}}));
        assert!(refused.unwrap_err().to_string().contains("linux.security_context.namespace_options.pid"));
        let period = |number: Value| parse(&json!({"linux": {"resources": {"cpu_period": number}}}));
        assert!(period(json!(u64::MAX)).is_err());
        assert!(period(json!("-9223372036854775808")).is_ok());
    }

    /// JSON whose keys are names of the CRI's fields, so that it gets below the top of a message.
    fn any_json() -> impl Strategy<Value = Value> {
        let name = proptest::sample::select(vec![
            "metadata",
            "name",
            "attempt",
            "image",
            "command",
            "envs",
            "key",
            "value",
            "mounts",
            "readonly",
            "labels",
            "linux",
            "resources",
            "cpu_period",
            "security_context",
            "capabilities",
            "add_capabilities",
            "run_as_user",
            "supplemental_groups",
            "namespace_options",
            "pid",
            "NETWORK",
            "logPath",
            "unknown",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-3_i32..70_000).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-zA-Z0-9-]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((name.clone(), inner), 0..6).prop_map(|pairs| pairs
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value))
                    .collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_json_is_refused_or_gives_a_message_whose_json_and_text_agree(value in any_json()) {
            let Ok(Parsed { mut message, .. }) = parse(&value) else { return Ok(()) };
            let registry = Registry::load().unwrap();
            // Bytes are printed in base64, and read as they are.
            message.envs.clear();
            let json = registry.to_json(&message).unwrap();
            let text: Value = serde_json::from_str(&registry.to_text(&message).unwrap()).unwrap();
            prop_assert_eq!(&text, &json);
            prop_assert_eq!(parse(&json).unwrap().message, message);
        }
    }
}
