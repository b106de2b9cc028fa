//! Parses the generated table: text -> packages and messages, once per process.
//!
//! The text is our own generated data, compiled in; a line that cannot be read is left out, and the test below fails
//! when that happens to any line, so there is no run-time error to report.

use std::collections::HashMap;

use super::{Field, JsonField, ListType, Message, MessageRef, Package, PatchStrategy, Repeat, Table, Type};

pub(super) fn parse(text: &'static str) -> Table {
    let packages: &'static [Package] = Box::leak(parse_packages(text).into_boxed_slice());
    let by_short = number_messages(text);
    let mut messages: Vec<Message> = Vec::with_capacity(by_short.len());
    let mut package = 0;
    let mut fields = Vec::new();
    for line in text.lines() {
        if line.starts_with("P ") {
            package = packages.iter().position(|p| Some(p.short) == line.split(' ').nth(1)).unwrap_or_default();
        } else if let Some(rest) = line.strip_prefix("M ") {
            finish(&mut messages, &mut fields);
            messages.push(parse_message(rest, &packages[package]));
        } else if let Some(rest) = line.strip_prefix(' ')
            && let Some(message) = messages.last()
            && let Some(field) = parse_field(rest, message.package, &by_short)
        {
            fields.push(field);
        }
    }
    finish(&mut messages, &mut fields);
    for at in 0..messages.len() {
        let mut by_name = Vec::new();
        collect_json_fields(&messages, at, &[], &mut by_name);
        by_name.sort_by_key(|entry| entry.field.name);
        messages[at].by_name = by_name;
    }
    Table { packages, messages, by_short }
}

/// Gives the fields collected so far to the last message.
fn finish(messages: &mut [Message], fields: &mut Vec<Field>) {
    let Some(message) = messages.last_mut() else { return };
    let fields: &'static [Field] = Box::leak(std::mem::take(fields).into_boxed_slice());
    let mut by_tag: Vec<u16> = (0..fields.len() as u16).collect();
    by_tag.sort_by_key(|&at| fields[at as usize].tag);
    message.fields = fields;
    message.by_tag = by_tag;
}

fn collect_json_fields(messages: &[Message], at: usize, via: &[&'static str], into: &mut Vec<JsonField>) {
    for field in messages[at].fields {
        match field.ty {
            Type::Message(MessageRef(inner)) if field.is_inline() => {
                let mut via = via.to_vec();
                via.push(messages[inner as usize].name);
                collect_json_fields(messages, inner as usize, &via, into);
            }
            _ => into.push(JsonField { field, via: via.to_vec() }),
        }
    }
}

fn parse_packages(text: &'static str) -> Vec<Package> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("P "));
    lines
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (short, definition, api) = (words.next()?, words.next()?, words.next()?);
            let version = short.rsplit('/').next()?;
            let group = match api.rsplit_once('/') {
                Some((group, _)) => Some(group),
                None if api == "-" => None,
                None => Some(""),
            };
            Some(Package { short, definition, group, version })
        })
        .collect()
}

/// Gives every message its number first, since fields refer forward.
fn number_messages(text: &'static str) -> HashMap<String, MessageRef> {
    let mut package = "";
    let mut by_short = HashMap::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("P"), Some(short)) => package = short,
            (Some("M"), Some(name)) => {
                let number = MessageRef(by_short.len() as u16);
                by_short.insert(format!("{package}.{name}"), number);
            }
            _ => {}
        }
    }
    by_short
}

fn parse_message(line: &'static str, package: &'static Package) -> Message {
    let mut words = line.split(' ');
    let name = words.next().unwrap_or_default();
    let flags: Vec<&str> = words.collect();
    Message {
        name,
        package,
        type_meta: flags.contains(&"typemeta"),
        is_kind: flags.contains(&"kind"),
        atomic: flags.contains(&"atomic"),
        fields: &[],
        by_tag: Vec::new(),
        by_name: Vec::new(),
    }
}

fn parse_field(line: &'static str, package: &Package, by_short: &HashMap<String, MessageRef>) -> Option<Field> {
    let mut words = line.split(' ');
    let name = words.next()?;
    let tag = words.next()?.parse().ok()?;
    let ty = words.next()?;
    let (repeat, ty) = match (ty.strip_prefix("[]"), ty.strip_prefix("{}")) {
        (Some(ty), _) => (Repeat::List, ty),
        (_, Some(ty)) => (Repeat::Map, ty),
        _ => (Repeat::One, ty),
    };
    let (ty, go_name) = parse_type(ty, package, by_short)?;
    let mut field = Field {
        name: if name == "-" { "" } else { name },
        tag,
        ty,
        repeat,
        pointer: false,
        omit_empty: false,
        omit_zero: false,
        required: false,
        list_type: ListType::Unset,
        map_atomic: false,
        map_granular: false,
        patch: PatchStrategy::default(),
        merge_key: None,
        default: None,
        go_name,
    };
    for flag in words {
        apply_flag(&mut field, flag);
    }
    Some(field)
}

fn parse_type(
    word: &'static str,
    package: &Package,
    by_short: &HashMap<String, MessageRef>,
) -> Option<(Type, Option<&'static str>)> {
    let (base, go_name) = match word.split_once(':') {
        Some((base, go_name)) => (base, Some(go_name)),
        None => (word, None),
    };
    let ty = match base {
        "string" => Type::String,
        "bool" => Type::Bool,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "time" => Type::Time,
        "microtime" => Type::MicroTime,
        "quantity" => Type::Quantity,
        "intorstring" => Type::IntOrString,
        "raw" => Type::Raw,
        "fields" => Type::Fields,
        "json" => Type::Json,
        "schemaorarray" => Type::SchemaOrArray,
        "schemaorbool" => Type::SchemaOrBool,
        "schemaorstrings" => Type::SchemaOrStrings,
        "strings" => Type::Strings,
        reference => {
            let full = match reference.strip_prefix('.') {
                Some(name) => format!("{}.{name}", package.short),
                None => reference.to_string(),
            };
            Type::Message(*by_short.get(&full)?)
        }
    };
    Some((ty, go_name))
}

fn apply_flag(field: &mut Field, flag: &'static str) {
    match flag.split_once(':') {
        None => match flag {
            "ptr" => field.pointer = true,
            "omit" => field.omit_empty = true,
            "omitzero" => field.omit_zero = true,
            "required" => field.required = true,
            "set" => field.list_type = ListType::Set,
            "atomic" if field.repeat == Repeat::List => field.list_type = ListType::Atomic,
            "atomic" => field.map_atomic = true,
            "granular" => field.map_granular = true,
            _ => {}
        },
        Some(("map", keys)) => field.list_type = ListType::Map(keys.split(',').collect()),
        Some(("patch", words)) => {
            field.patch.merge = words.split(',').any(|word| word == "merge");
            field.patch.retain_keys = words.split(',').any(|word| word == "retainKeys");
        }
        Some(("key", key)) => field.merge_key = Some(key),
        Some(("default", json)) => field.default = Some(json),
        Some(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_understood() {
        let text = include_str!("table.txt");
        let table = parse(text);
        let fields: usize = table.messages.iter().map(|m| m.fields.len()).sum();
        assert_eq!(fields, text.lines().filter(|line| line.starts_with(' ')).count());
        assert_eq!(table.messages.len(), text.lines().filter(|line| line.starts_with("M ")).count());
        assert_eq!(table.by_short.len(), table.messages.len());
    }
}
