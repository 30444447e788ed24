//! JSON in a message's own order, for people who look for the id at the top; and JSON that leaves defaults out.

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto};
use serde_json::{Map, Value};

use super::{Registry, entry_fields};

/// The text of a message's JSON, without a newline at its end.
pub(super) fn message(registry: &Registry, name: &str, value: &Value) -> String {
    let mut out = String::new();
    write_message(&mut out, (registry, name), value, 0);
    out
}

fn write_message(out: &mut String, (registry, name): (&Registry, &str), value: &Value, indent: usize) {
    let (Some(descriptor), Value::Object(object)) = (registry.messages.get(name), value) else {
        out.push_str(&value.to_string());
        return;
    };
    let members =
        descriptor.field.iter().filter_map(|field| object.get(field.json_name()).map(|value| (field, value)));
    let members: Vec<_> = members.collect();
    block(out, ('{', '}'), indent, &members, |out, (field, value), indent| {
        key(out, field.json_name());
        write_field(out, registry, (field, value), indent);
    });
}

fn write_field(
    out: &mut String,
    registry: &Registry,
    (field, value): (&FieldDescriptorProto, &Value),
    indent: usize,
) {
    match value {
        Value::Array(items) => {
            let items: Vec<&Value> = items.iter().collect();
            block(out, ('[', ']'), indent, &items, |out, item, indent| {
                write_single(out, registry, (field, item), indent);
            });
        }
        Value::Object(object) => match registry.map_entry(field).and_then(entry_fields) {
            Some((_, of)) => {
                let pairs: Vec<_> = object.iter().collect();
                block(out, ('{', '}'), indent, &pairs, |out, (name, value), indent| {
                    key(out, name);
                    write_single(out, registry, (of, value), indent);
                });
            }
            None => write_single(out, registry, (field, value), indent),
        },
        value => write_single(out, registry, (field, value), indent),
    }
}

fn write_single(
    out: &mut String,
    registry: &Registry,
    (field, value): (&FieldDescriptorProto, &Value),
    indent: usize,
) {
    if field.r#type() == Type::Message {
        write_message(out, (registry, field.type_name()), value, indent);
    } else {
        out.push_str(&value.to_string());
    }
}

fn key(out: &mut String, name: &str) {
    out.push_str(&Value::from(name).to_string());
    out.push_str(": ");
}

/// Items between brackets, each on a line of its own.
fn block<T: Copy>(
    out: &mut String,
    (begin, end): (char, char),
    indent: usize,
    items: &[T],
    write: impl Fn(&mut String, T, usize),
) {
    out.push(begin);
    for (at, item) in items.iter().enumerate() {
        out.push_str(if at == 0 { "\n" } else { ",\n" });
        out.extend(std::iter::repeat_n(' ', indent + 2));
        write(out, *item, indent + 2);
    }
    if !items.is_empty() {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', indent));
    }
    out.push(end);
}

/// A message's JSON with the proto file's names, its defaults left out.
pub(super) fn compact(registry: &Registry, name: &str, value: Value) -> Value {
    let (Some(descriptor), Value::Object(object)) = (registry.messages.get(name), &value) else {
        return value;
    };
    Value::Object(compact_object(registry, descriptor, object))
}

fn compact_object(
    registry: &Registry,
    descriptor: &DescriptorProto,
    object: &Map<String, Value>,
) -> Map<String, Value> {
    let mut kept = Map::new();
    for field in &descriptor.field {
        let Some(value) = object.get(field.json_name()) else { continue };
        let nothing = match value {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Bool(true) | Value::Object(_) => false,
        };
        if !nothing {
            kept.insert(field.name().to_owned(), compact(registry, field.type_name(), value.clone()));
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use slipway_proto::runtime::v1::{
        ListPodSandboxResponse, PodSandbox, RuntimeHandler, RuntimeHandlerFeatures,
    };

    #[test]
    fn fields_stand_in_the_order_of_their_definition() {
        let pod = PodSandbox {
            id: "a".into(),
            labels: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        };
        let list = ListPodSandboxResponse { items: vec![pod] };
        let text = Registry::load().unwrap().to_text("runtime.v1.ListPodSandboxResponse", &list).unwrap();
        let expected = "{\n  \"items\": [\n    {\n      \"id\": \"a\",\n      \"state\": \"SANDBOX_READY\",\n      \"createdAt\": \"0\",\n      \"labels\": {\n        \"k\": \"v\"\n      },\n      \"annotations\": {},\n      \"runtimeHandler\": \"\"\n    }\n  ]\n}";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_as_it_would_be_anyway_is_left_out() {
        let features = Some(RuntimeHandlerFeatures { user_namespaces: true, ..Default::default() });
        let handler = RuntimeHandler { name: String::new(), features };
        let compact = Registry::load().unwrap().compact("runtime.v1.RuntimeHandler", &handler).unwrap();
        assert_eq!(compact, serde_json::json!({"features": {"user_namespaces": true}}));
    }
}
