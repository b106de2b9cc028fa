//! Reads a `generated.proto`: text -> messages with their numbered fields. Only the subset that the generator of those
//! files prints is understood: top-level messages, `optional`, `repeated`, `required` and `map` fields, one a line.
//! Comments are skipped; nothing but names, numbers and types is kept.

use std::collections::BTreeMap;
use std::path::Path;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    One,
    List,
    /// A map with string keys.
    Map,
}

pub struct ProtoField {
    /// A protobuf scalar's word or a message's full protobuf name.
    pub ty: String,
    pub repeat: Repeat,
}

/// Message name -> field number -> field.
pub type Messages = BTreeMap<String, BTreeMap<u32, ProtoField>>;

/// Reads one file; relative type names are resolved against `package`.
pub fn read(path: &Path, package: &str) -> Result<Messages, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("read {}: {e}", path.display()))?;
    let mut messages = Messages::new();
    let mut current: Option<(String, BTreeMap<u32, ProtoField>)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("message ") {
            current = Some((rest.trim_end_matches('{').trim().to_string(), BTreeMap::new()));
        } else if line == "}" {
            if let Some((name, fields)) = current.take() {
                messages.insert(name, fields);
            }
        } else if let Some((_, fields)) = current.as_mut()
            && let Some((number, field)) = parse_field(line, package)
        {
            fields.insert(number, field);
        }
    }
    Ok(messages)
}

fn parse_field(line: &str, package: &str) -> Option<(u32, ProtoField)> {
    if line.starts_with("//") {
        return None;
    }
    let (declaration, number) = line.split_once(" = ")?;
    let number = number.trim_end_matches(';').split_whitespace().next()?.parse().ok()?;
    if let Some(rest) = declaration.strip_prefix("map<string, ") {
        let (ty, _) = rest.split_once('>')?;
        return Some((number, ProtoField { ty: resolve(ty, package), repeat: Repeat::Map }));
    }
    let mut words = declaration.split_whitespace();
    let repeat = match words.next()? {
        "optional" | "required" => Repeat::One,
        "repeated" => Repeat::List,
        _ => return None,
    };
    Some((number, ProtoField { ty: resolve(words.next()?, package), repeat }))
}

fn resolve(ty: &str, package: &str) -> String {
    const SCALARS: &[&str] = &["string", "bytes", "bool", "int32", "int64", "double"];
    if SCALARS.contains(&ty) {
        ty.to_string()
    } else if ty.contains('.') {
        ty.trim_start_matches('.').to_string()
    } else {
        format!("{package}.{ty}")
    }
}
