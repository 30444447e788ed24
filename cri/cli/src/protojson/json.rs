//! A message as a JSON value.
//!
//! prost-reflect has a serialiser of its own, which is not used: it orders a message's fields by their numbers and a map's
//! entries at random, where crictl orders by definition and by key; and it can't leave out the absent and write the defaults
//! at once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value};

/// The fields of a message in the order of their definition.
pub(super) fn fields(descriptor: &MessageDescriptor) -> Vec<FieldDescriptor> {
    let defined = descriptor.descriptor_proto().field.iter();
    defined.filter_map(|field| descriptor.get_field(field.number().unsigned_abs())).collect()
}

/// Whether a field is shown: one that may be absent, a message or a member of a oneof, only when it is there.
pub(super) fn is_shown(message: &DynamicMessage, field: &FieldDescriptor) -> bool {
    message.has_field(field) || !field.supports_presence()
}

/// A message with protobuf's JSON names and every default written out.
pub(super) fn message(message: &DynamicMessage) -> Value {
    let mut object = Map::new();
    for field in fields(&message.descriptor()) {
        if is_shown(message, &field) {
            object.insert(field.json_name().to_owned(), value(&field.kind(), &message.get_field(&field)));
        }
    }
    Value::Object(object)
}

/// A message with the names of the proto file, without the fields that have their defaults.
pub(super) fn compact(message: &DynamicMessage) -> Value {
    let mut object = Map::new();
    for field in fields(&message.descriptor()) {
        if message.has_field(&field) {
            let kept = match &*message.get_field(&field) {
                Field::Message(inner) => compact(inner),
                other => value(&field.kind(), other),
            };
            object.insert(field.name().to_owned(), kept);
        }
    }
    Value::Object(object)
}

/// The value of a field, or an item of one.
pub(super) fn value(kind: &Kind, field: &Field) -> Value {
    match field {
        Field::Bool(truth) => (*truth).into(),
        Field::I32(number) => (*number).into(),
        Field::U32(number) => (*number).into(),
        Field::I64(number) => number.to_string().into(),
        Field::U64(number) => number.to_string().into(),
        Field::F32(number) => (*number).into(),
        Field::F64(number) => (*number).into(),
        Field::String(text) => text.as_str().into(),
        Field::Bytes(bytes) => STANDARD.encode(bytes).into(),
        Field::EnumNumber(number) => enumerated(kind, *number),
        Field::Message(inner) => message(inner),
        Field::List(items) => items.iter().map(|item| value(kind, item)).collect(),
        Field::Map(entries) => {
            let kind = entry_kind(kind);
            entries.iter().map(|(key, entry)| (key_text(key), value(&kind, entry))).collect()
        }
    }
}

/// The kind of a map's values; `kind` is that of the map.
pub(super) fn entry_kind(kind: &Kind) -> Kind {
    match kind {
        Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
        other => other.clone(),
    }
}

/// A value of an enum by its name, or by its number where the descriptor has no name for it.
fn enumerated(kind: &Kind, number: i32) -> Value {
    let named = kind.as_enum().and_then(|values| values.get_value(number));
    named.map_or_else(|| number.into(), |value| value.name().into())
}

/// A map's key as JSON has it.
pub(super) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(truth) => truth.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
        MapKey::String(text) => text.clone(),
    }
}
