//! Compares the compiled descriptor of `runtime.v1` with the list of the wire contract, in both directions: no RPC,
//! message, field, number, type or enum value may be missing, different, or too many.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
};

const CONTRACT: &str = include_str!("../data/cri-v1.wire.txt");

fn cri_file() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(slipway_proto::DESCRIPTOR).expect("the descriptor set decodes");
    set.file.into_iter().find(|file| file.package() == "runtime.v1").expect("runtime.v1 is compiled in")
}

/// One line a fact, so that a difference names what differs.
fn listed_facts() -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    let mut section = "";
    for line in CONTRACT.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        } else if line.trim().is_empty() || line.starts_with("# ") {
            continue;
        } else if let Some(service) = section.strip_prefix("service ") {
            facts.insert(format!("rpc {service}.{line}"));
        } else {
            let (name, members) = line.split_once(':').expect("a line names its message");
            let kind = section.trim_end_matches('s');
            facts.insert(format!("{kind} {name}"));
            for member in members.split(", ").map(str::trim).filter(|member| !member.is_empty()) {
                facts.insert(format!("{kind} {name}: {member}"));
            }
        }
    }
    facts
}

fn compiled_facts(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut facts = BTreeSet::new();
    for service in &file.service {
        for method in &service.method {
            assert!(!method.client_streaming(), "{} streams its requests", method.name());
            let stream = if method.server_streaming() { "stream " } else { "" };
            let (input, output) = (local(method.input_type()), local(method.output_type()));
            facts.insert(format!("rpc {}.{}({input}) -> {stream}{output}", service.name(), method.name()));
        }
    }
    for message in &file.message_type {
        add_message(message, &mut facts);
    }
    for values in &file.enum_type {
        add_enum("", values, &mut facts);
    }
    facts
}

fn add_message(message: &DescriptorProto, facts: &mut BTreeSet<String>) {
    let name = message.name();
    facts.insert(format!("message {name}"));
    assert!(message.oneof_decl.is_empty(), "{name} has a oneof, which the contract does not know");
    for field in &message.field {
        let kind = field_kind(message, field);
        facts.insert(format!("message {name}: {kind} {}={}", field.name(), field.number()));
    }
    for values in &message.enum_type {
        add_enum(&format!("{name}."), values, facts);
    }
    for nested in &message.nested_type {
        assert!(is_map_entry(nested), "{name} nests {}, which the contract does not know", nested.name());
    }
}

fn add_enum(outer: &str, values: &EnumDescriptorProto, facts: &mut BTreeSet<String>) {
    let name = format!("{outer}{}", values.name());
    facts.insert(format!("enum {name}"));
    for value in &values.value {
        facts.insert(format!("enum {name}: {}={}", value.name(), value.number()));
    }
}

fn is_map_entry(message: &DescriptorProto) -> bool {
    message.options.as_ref().is_some_and(|options| options.map_entry())
}

fn field_kind(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let single = single_kind(field);
    if field.label() != Label::Repeated {
        return single;
    }
    let entry = message.nested_type.iter().find(|nested| is_map_entry(nested) && single == nested.name());
    match entry {
        Some(entry) => {
            let kinds: Vec<String> = entry.field.iter().map(single_kind).collect();
            format!("{{{}}}", kinds.join(":"))
        }
        None => format!("{single}[]"),
    }
}

fn single_kind(field: &FieldDescriptorProto) -> String {
    match field.r#type() {
        Type::Message | Type::Enum => {
            local(field.type_name()).rsplit('.').next().unwrap_or_default().to_owned()
        }
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    }
}

fn local(name: &str) -> &str {
    name.trim_start_matches(".runtime.v1.")
}

#[test]
fn the_compiled_descriptor_is_exactly_the_listed_contract() {
    let (listed, compiled) = (listed_facts(), compiled_facts(&cri_file()));
    let missing: Vec<_> = listed.difference(&compiled).collect();
    let extra: Vec<_> = compiled.difference(&listed).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
}

#[test]
fn the_contract_has_41_calls() {
    assert_eq!(listed_facts().iter().filter(|fact| fact.starts_with("rpc ")).count(), 41);
}
