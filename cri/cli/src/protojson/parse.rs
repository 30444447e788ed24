//! From JSON to a message. Names may be the proto file's or protobuf's JSON ones, in any case; enums are numbers or names;
//! 64-bit numbers may be strings; bytes are the text itself. An error names the path of the value.
//!
//! This is the reading of Go's encoding/json, which crictl applies to its files, and not protobuf's JSON: prost-reflect's
//! deserialiser would refuse files that crictl takes.

use std::collections::HashMap;

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, Value as Field,
};
use serde_json::{Map, Value};

type Result<T> = std::result::Result<T, String>;

/// Reads a message; the paths of keys that it does not have are added to `unknown`.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    value: &Value,
    unknown: &mut Vec<String>,
) -> Result<DynamicMessage> {
    Parser { path: Vec::new(), unknown }.message(descriptor, value)
}

struct Parser<'a> {
    path: Vec<String>,
    unknown: &'a mut Vec<String>,
}

impl Parser<'_> {
    fn refuse<T>(&self, want: &str, value: &Value) -> Result<T> {
        let path = if self.path.is_empty() { "the file".to_owned() } else { self.path.join(".") };
        Err(format!("{path}: want {want}, not {value}"))
    }

    fn message(&mut self, descriptor: &MessageDescriptor, value: &Value) -> Result<DynamicMessage> {
        let Value::Object(object) = value else { return self.refuse("an object", value) };
        let mut message = DynamicMessage::new(descriptor.clone());
        for (key, value) in object {
            let named = |field: &FieldDescriptor| {
                field.name().eq_ignore_ascii_case(key) || field.json_name().eq_ignore_ascii_case(key)
            };
            self.path.push(key.clone());
            match descriptor.fields().find(named) {
                Some(_) if value.is_null() => {}
                Some(field) => {
                    let parsed = self.field(&field, value)?;
                    if message.try_set_field(&field, parsed).is_err() {
                        return self.refuse("a value of the field's type", value);
                    }
                }
                None => self.unknown.push(self.path.join(".")),
            }
            self.path.pop();
        }
        Ok(message)
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value) -> Result<Field> {
        let kind = field.kind();
        if field.is_map() {
            let Value::Object(object) = value else { return self.refuse("an object", value) };
            let Some(entry) = kind.as_message() else { return self.refuse("a map", value) };
            return self.map(entry, object);
        }
        if !field.is_list() {
            return self.single(&kind, value);
        }
        let Value::Array(items) = value else { return self.refuse("an array", value) };
        let mut list = Vec::new();
        for (at, item) in items.iter().enumerate() {
            self.path.push(at.to_string());
            list.push(self.single(&kind, item)?);
            self.path.pop();
        }
        Ok(Field::List(list))
    }

    fn map(&mut self, entry: &MessageDescriptor, object: &Map<String, Value>) -> Result<Field> {
        let (key_kind, value_kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut map = HashMap::new();
        for (key, value) in object {
            self.path.push(key.clone());
            let name = Value::String(key.clone());
            let Some(key) = self.single(&key_kind, &name)?.into_map_key() else {
                return self.refuse("a key of the map's type", &name);
            };
            let value = if value.is_null() {
                Field::default_value(&value_kind)
            } else {
                self.single(&value_kind, value)?
            };
            map.insert(key, value);
            self.path.pop();
        }
        Ok(Field::Map(map))
    }

    fn single(&mut self, kind: &Kind, value: &Value) -> Result<Field> {
        Ok(match kind {
            Kind::Message(descriptor) => Field::Message(self.message(descriptor, value)?),
            Kind::String => Field::String(self.text(value)?),
            Kind::Bytes => Field::Bytes(self.text(value)?.into_bytes().into()),
            Kind::Bool => match value {
                Value::Bool(truth) => Field::Bool(*truth),
                _ => return self.refuse("true or false", value),
            },
            Kind::Enum(values) => Field::EnumNumber(self.enumerated(values, value)?),
            Kind::Double => match value.as_f64() {
                Some(number) => Field::F64(number),
                None => return self.refuse("a number", value),
            },
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Field::I32(self.whole(value)?),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(self.whole(value)?),
            Kind::Uint32 | Kind::Fixed32 => Field::U32(self.whole(value)?),
            Kind::Uint64 | Kind::Fixed64 => Field::U64(self.whole(value)?),
            Kind::Float => return self.refuse("a type that this program can read", value),
        })
    }

    fn text(&self, value: &Value) -> Result<String> {
        match value {
            Value::String(text) => Ok(text.clone()),
            // YAML needs no quotes around a word that is meant as text.
            Value::Number(number) if number.is_f64() => Ok(number.as_f64().unwrap_or_default().to_string()),
            Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
            _ => self.refuse("a string", value),
        }
    }

    fn enumerated(&self, values: &EnumDescriptor, value: &Value) -> Result<i32> {
        let Some(name) = value.as_str() else { return self.whole(value) };
        match values.get_value_by_name(name) {
            Some(known) => Ok(known.number()),
            None => self.refuse("a value of its enum", value),
        }
    }

    fn whole<T: Whole>(&self, value: &Value) -> Result<T> {
        let number = match value {
            Value::String(text) => text.parse().ok(),
            _ => value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from)),
        };
        match number.and_then(|number: i128| T::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => self.refuse(&format!("a whole number from {} to {}", T::LEAST, T::MOST), value),
        }
    }
}

/// A whole number of some size.
trait Whole: TryFrom<i128> {
    const LEAST: i128;
    const MOST: i128;
}

impl Whole for i32 {
    const LEAST: i128 = i32::MIN as i128;
    const MOST: i128 = i32::MAX as i128;
}

impl Whole for i64 {
    const LEAST: i128 = i64::MIN as i128;
    const MOST: i128 = i64::MAX as i128;
}

impl Whole for u32 {
    const LEAST: i128 = 0;
    const MOST: i128 = u32::MAX as i128;
}

impl Whole for u64 {
    const LEAST: i128 = 0;
    const MOST: i128 = u64::MAX as i128;
}
