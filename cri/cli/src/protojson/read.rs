//! From the wire's bytes to JSON. `None` means that the bytes don't fit the descriptor.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost_types::FieldDescriptorProto;
use prost_types::field_descriptor_proto::{Label, Type};
use serde_json::{Map, Value};

use super::{Registry, entry_fields};

/// One value as the wire has it.
#[derive(Clone, Copy, Debug)]
enum Raw<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

pub(super) fn message(registry: &Registry, name: &str, bytes: &[u8]) -> Option<Value> {
    let descriptor = registry.messages.get(name)?;
    let values = split(bytes)?;
    let mut object = Map::new();
    for field in &descriptor.field {
        let present = values.get(&field.number()).map(Vec::as_slice).unwrap_or_default();
        if let Some(value) = field_value(registry, field, present)? {
            object.insert(field.json_name().to_owned(), value);
        }
    }
    Some(Value::Object(object))
}

/// The outer `None` is an error, the inner one a field that is absent.
fn field_value(
    registry: &Registry,
    field: &FieldDescriptorProto,
    present: &[Raw<'_>],
) -> Option<Option<Value>> {
    if let Some(entry) = registry.map_entry(field) {
        let (key, value) = entry_fields(entry)?;
        let mut object = Map::new();
        for raw in present {
            let Raw::Bytes(bytes) = raw else { return None };
            let parts = split(bytes)?;
            let key = single(registry, key, last(&parts, 1))?;
            let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            object.insert(key, single(registry, value, last(&parts, 2))?);
        }
        return Some(Some(Value::Object(object)));
    }
    if field.label() == Label::Repeated {
        let mut items = Vec::new();
        for raw in present {
            match raw {
                Raw::Bytes(packed) if is_packable(field.r#type()) => {
                    unpack(registry, field, packed, &mut items)?;
                }
                raw => items.push(single(registry, field, Some(*raw))?),
            }
        }
        return Some(Some(Value::Array(items)));
    }
    let optional = field.oneof_index.is_some() || field.r#type() == Type::Message;
    if optional && present.is_empty() {
        return Some(None);
    }
    Some(Some(single(registry, field, present.last().copied())?))
}

fn last<'a>(parts: &BTreeMap<i32, Vec<Raw<'a>>>, number: i32) -> Option<Raw<'a>> {
    parts.get(&number)?.last().copied()
}

fn is_packable(kind: Type) -> bool {
    !matches!(kind, Type::String | Type::Bytes | Type::Message | Type::Group)
}

fn unpack(
    registry: &Registry,
    field: &FieldDescriptorProto,
    mut packed: &[u8],
    items: &mut Vec<Value>,
) -> Option<()> {
    while !packed.is_empty() {
        let raw = match field.r#type() {
            Type::Double | Type::Fixed64 | Type::Sfixed64 => fixed64(&mut packed)?,
            Type::Float | Type::Fixed32 | Type::Sfixed32 => fixed32(&mut packed)?,
            _ => Raw::Varint(varint(&mut packed)?),
        };
        items.push(single(registry, field, Some(raw))?);
    }
    Some(())
}

/// One value; an absent one is the default.
fn single(registry: &Registry, field: &FieldDescriptorProto, raw: Option<Raw<'_>>) -> Option<Value> {
    match field.r#type() {
        Type::Message | Type::Group => message(registry, field.type_name(), bytes(raw)?),
        Type::String => Some(String::from_utf8_lossy(bytes(raw)?).into()),
        Type::Bytes => Some(STANDARD.encode(bytes(raw)?).into()),
        Type::Enum => {
            let number = i64::from(low_half(integer(raw)?));
            let values = registry.enums.get(field.type_name())?;
            let named = values.value.iter().find(|value| i64::from(value.number()) == number);
            Some(named.map_or_else(|| number.into(), |value| value.name().into()))
        }
        Type::Bool => Some((integer(raw)? != 0).into()),
        Type::Double => Some(f64::from_bits(integer(raw)?).into()),
        Type::Float => Some(f32::from_bits(low_half(integer(raw)?).cast_unsigned()).into()),
        Type::Int64 | Type::Sfixed64 => Some(integer(raw)?.cast_signed().to_string().into()),
        Type::Uint64 | Type::Fixed64 => Some(integer(raw)?.to_string().into()),
        Type::Sint64 => Some(unzigzag(integer(raw)?).to_string().into()),
        Type::Int32 | Type::Sfixed32 => Some(low_half(integer(raw)?).into()),
        Type::Sint32 => Some(unzigzag(integer(raw)?).into()),
        Type::Uint32 | Type::Fixed32 => Some(low_half(integer(raw)?).cast_unsigned().into()),
    }
}

fn bytes(raw: Option<Raw<'_>>) -> Option<&[u8]> {
    match raw {
        None => Some(&[]),
        Some(Raw::Bytes(bytes)) => Some(bytes),
        Some(_) => None,
    }
}

fn integer(raw: Option<Raw<'_>>) -> Option<u64> {
    match raw {
        None => Some(0),
        Some(Raw::Varint(value) | Raw::Fixed64(value)) => Some(value),
        Some(Raw::Fixed32(value)) => Some(value.into()),
        Some(Raw::Bytes(_)) => None,
    }
}

/// The lower 32 bits, which are all that a 32-bit field has.
fn low_half(value: u64) -> i32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn split(mut bytes: &[u8]) -> Option<BTreeMap<i32, Vec<Raw<'_>>>> {
    let mut values: BTreeMap<i32, Vec<Raw<'_>>> = BTreeMap::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let raw = match tag & 7 {
            0 => Raw::Varint(varint(&mut bytes)?),
            1 => fixed64(&mut bytes)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let (head, tail) = bytes.split_at_checked(length)?;
                bytes = tail;
                Raw::Bytes(head)
            }
            5 => fixed32(&mut bytes)?,
            _ => return None,
        };
        values.entry(i32::try_from(tag >> 3).ok()?).or_default().push(raw);
    }
    Some(values)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

fn fixed64<'a>(bytes: &mut &[u8]) -> Option<Raw<'a>> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(Raw::Fixed64(u64::from_le_bytes(*head)))
}

fn fixed32<'a>(bytes: &mut &[u8]) -> Option<Raw<'a>> {
    let (head, tail) = bytes.split_first_chunk()?;
    *bytes = tail;
    Some(Raw::Fixed32(u32::from_le_bytes(*head)))
}
