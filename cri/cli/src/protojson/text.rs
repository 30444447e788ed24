//! The text of a message's JSON, with its fields in the order of their definition, as crictl prints lists: `serde_json`'s
//! objects are ordered by name.

use std::collections::BTreeMap;

use prost_reflect::{DynamicMessage, Kind, ReflectMessage as _, Value as Field};
use serde_json::Value;

use super::json;

/// The text, without a newline at its end.
pub(super) fn message(message: &DynamicMessage) -> String {
    let mut out = String::new();
    write_message(&mut out, message, 0);
    out
}

fn write_message(out: &mut String, message: &DynamicMessage, indent: usize) {
    let mut members = json::fields(&message.descriptor());
    members.retain(|field| json::is_shown(message, field));
    let mut block = Block::open(out, '{', indent);
    for field in members {
        let out = block.item();
        write_key(out, field.json_name());
        write_value(out, &field.kind(), &message.get_field(&field), indent + STEP);
    }
    block.close('}');
}

fn write_value(out: &mut String, kind: &Kind, value: &Field, indent: usize) {
    match value {
        Field::Message(inner) => write_message(out, inner, indent),
        Field::List(items) => {
            let mut block = Block::open(out, '[', indent);
            for item in items {
                write_value(block.item(), kind, item, indent + STEP);
            }
            block.close(']');
        }
        Field::Map(entries) => {
            let kind = json::entry_kind(kind);
            let sorted: BTreeMap<String, &Field> =
                entries.iter().map(|(key, entry)| (json::key_text(key), entry)).collect();
            let mut block = Block::open(out, '{', indent);
            for (key, entry) in sorted {
                let out = block.item();
                write_key(out, &key);
                write_value(out, &kind, entry, indent + STEP);
            }
            block.close('}');
        }
        single => out.push_str(&json::value(kind, single).to_string()),
    }
}

fn write_key(out: &mut String, name: &str) {
    out.push_str(&Value::from(name).to_string());
    out.push_str(": ");
}

/// The indentation of a level.
const STEP: usize = 2;

/// Items between brackets, each on a line of its own.
struct Block<'a> {
    out: &'a mut String,
    indent: usize,
    is_empty: bool,
}

impl<'a> Block<'a> {
    fn open(out: &'a mut String, bracket: char, indent: usize) -> Self {
        out.push(bracket);
        Self { out, indent, is_empty: true }
    }

    /// Begins a line, on which the item is to be written.
    fn item(&mut self) -> &mut String {
        self.out.push_str(if self.is_empty { "\n" } else { ",\n" });
        self.out.extend(std::iter::repeat_n(' ', self.indent + STEP));
        self.is_empty = false;
        self.out
    }

    fn close(self, bracket: char) {
        if !self.is_empty {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(' ', self.indent));
        }
        self.out.push(bracket);
    }
}
