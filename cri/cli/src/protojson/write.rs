//! From JSON to the wire's bytes. Names may be the proto file's or protobuf's JSON ones, in any case; enums are numbers
//! or names; 64-bit numbers may be strings; bytes are the text itself. What is refused is named by its path.

use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::{Map, Value};

use super::{Registry, entry_fields};

type Result<T> = std::result::Result<T, String>;

pub(super) fn message(
    registry: &Registry,
    name: &str,
    value: &Value,
    unknown: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let mut writer = Writer { registry, path: Vec::new(), unknown };
    writer.message(name, value)
}

struct Writer<'a> {
    registry: &'a Registry,
    path: Vec<String>,
    unknown: &'a mut Vec<String>,
}

impl Writer<'_> {
    fn refuse<T>(&self, want: &str, value: &Value) -> Result<T> {
        let path = if self.path.is_empty() { "the file".to_owned() } else { self.path.join(".") };
        Err(format!("{path}: want {want}, not {value}"))
    }

    fn message(&mut self, name: &str, value: &Value) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let Value::Object(object) = value else { return self.refuse("an object", value) };
        let registry = self.registry;
        let Some(descriptor) = registry.messages.get(name) else {
            return self.refuse("a known message", value);
        };
        for (key, value) in object {
            let named = |field: &&FieldDescriptorProto| {
                field.name().eq_ignore_ascii_case(key) || field.json_name().eq_ignore_ascii_case(key)
            };
            self.path.push(key.clone());
            match descriptor.field.iter().find(named) {
                Some(_) if value.is_null() => {}
                Some(field) => self.field(field, value, &mut out)?,
                None => self.unknown.push(self.path.join(".")),
            }
            self.path.pop();
        }
        Ok(out)
    }

    fn field(&mut self, field: &FieldDescriptorProto, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        let registry = self.registry;
        if let Some(entry) = registry.map_entry(field) {
            let Value::Object(object) = value else { return self.refuse("an object", value) };
            let Some(fields) = entry_fields(entry) else { return self.refuse("a map", value) };
            return self.map(field, fields, object, out);
        }
        if field.label() != Label::Repeated {
            return self.single(field, value, out);
        }
        let Value::Array(items) = value else { return self.refuse("an array", value) };
        for (at, item) in items.iter().enumerate() {
            self.path.push(at.to_string());
            self.single(field, item, out)?;
            self.path.pop();
        }
        Ok(())
    }

    fn map(
        &mut self,
        field: &FieldDescriptorProto,
        (key_field, value_field): (&FieldDescriptorProto, &FieldDescriptorProto),
        object: &Map<String, Value>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        for (key, value) in object {
            self.path.push(key.clone());
            let mut entry = Vec::new();
            self.single(key_field, &Value::String(key.clone()), &mut entry)?;
            if !value.is_null() {
                self.single(value_field, value, &mut entry)?;
            }
            self.path.pop();
            put_bytes(field, &entry, out);
        }
        Ok(())
    }

    fn single(&mut self, field: &FieldDescriptorProto, value: &Value, out: &mut Vec<u8>) -> Result<()> {
        match field.r#type() {
            Type::Message => {
                let bytes = self.message(field.type_name(), value)?;
                put_bytes(field, &bytes, out);
            }
            Type::String | Type::Bytes => {
                match value {
                    Value::String(text) => put_bytes(field, text.as_bytes(), out),
                    // In YAML a word needs no quotes to be meant as text.
                    Value::Number(number) if number.is_f64() => {
                        put_bytes(field, number.as_f64().unwrap_or_default().to_string().as_bytes(), out);
                    }
                    Value::Number(_) | Value::Bool(_) => put_bytes(field, value.to_string().as_bytes(), out),
                    _ => return self.refuse("a string", value),
                }
            }
            Type::Bool => {
                let Value::Bool(truth) = value else { return self.refuse("true or false", value) };
                put_varint(field, u64::from(*truth), out);
            }
            Type::Enum => put_varint(field, self.enum_number(field, value)?, out),
            Type::Double => {
                let Some(number) = value.as_f64() else { return self.refuse("a number", value) };
                encode_key(tag(field), WireType::SixtyFourBit, out);
                out.extend(number.to_le_bytes());
            }
            Type::Int32 => put_varint(field, self.signed(value, i32::MIN.into(), i32::MAX.into())?, out),
            Type::Int64 => put_varint(field, self.signed(value, i64::MIN, i64::MAX)?, out),
            Type::Uint32 => put_varint(field, self.unsigned(value, u32::MAX.into())?, out),
            Type::Uint64 => put_varint(field, self.unsigned(value, u64::MAX)?, out),
            _ => return self.refuse("a type that this program can write", value),
        }
        Ok(())
    }

    fn enum_number(&self, field: &FieldDescriptorProto, value: &Value) -> Result<u64> {
        let Some(name) = value.as_str() else {
            return self.signed(value, i32::MIN.into(), i32::MAX.into());
        };
        let values = self.registry.enums.get(field.type_name());
        let named = values.and_then(|values| values.value.iter().find(|known| known.name() == name));
        match named {
            Some(known) => Ok(i64::from(known.number()).cast_unsigned()),
            None => self.refuse("a value of its enum", value),
        }
    }

    fn signed(&self, value: &Value, least: i64, most: i64) -> Result<u64> {
        let number = value.as_str().map_or_else(|| value.as_i64(), |text| text.parse().ok());
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => Ok(number.cast_unsigned()),
            None => self.refuse(&format!("a whole number from {least} to {most}"), value),
        }
    }

    fn unsigned(&self, value: &Value, most: u64) -> Result<u64> {
        let number = value.as_str().map_or_else(|| value.as_u64(), |text| text.parse().ok());
        match number.filter(|number| *number <= most) {
            Some(number) => Ok(number),
            None => self.refuse(&format!("a whole number from 0 to {most}"), value),
        }
    }
}

fn tag(field: &FieldDescriptorProto) -> u32 {
    field.number().unsigned_abs()
}

fn put_varint(field: &FieldDescriptorProto, value: u64, out: &mut Vec<u8>) {
    encode_key(tag(field), WireType::Varint, out);
    encode_varint(value, out);
}

fn put_bytes(field: &FieldDescriptorProto, bytes: &[u8], out: &mut Vec<u8>) {
    encode_key(tag(field), WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}
