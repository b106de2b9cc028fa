//! Reads a package's Go struct declarations: source text -> structs with their tagged fields, in order.
//! Understands the shape of API type files (one field a line, tags in backquotes); everything else is skipped.
//! Keeps what the JSON form depends on: names, order, `omitempty`, pointers, embedding and named scalar types.

use std::collections::BTreeMap;
use std::path::Path;

#[derive(Default)]
pub struct GoStruct {
    /// Embeds `TypeMeta`: the JSON form has `kind` and `apiVersion`, the protobuf form has not.
    pub type_meta: bool,
    pub fields: Vec<GoField>,
}

pub struct GoField {
    /// Empty when JSON inlines the embedded struct.
    pub json: String,
    /// The protobuf field number.
    pub tag: u32,
    pub pointer: bool,
    pub omit_empty: bool,
    pub omit_zero: bool,
    /// The Go name of the element type when it is a named non-struct type of an API package, such as `RestartPolicy`.
    pub named: Option<String>,
}

/// All structs declared in the directory's `.go` files (tests and generated files left out).
pub fn read_structs(dir: &Path) -> Result<BTreeMap<String, GoStruct>, String> {
    let mut structs = BTreeMap::new();
    let entries = std::fs::read_dir(dir).map_err(|e| format!("read {}: {e}", dir.display()))?;
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|e| e.path()).collect();
    files.sort();
    for path in files {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let skip = name.ends_with("_test.go") || name.starts_with("zz_") || name.starts_with("generated");
        if !name.ends_with(".go") || skip {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| format!("read {}: {e}", path.display()))?;
        parse_file(&text, &mut structs);
    }
    Ok(structs)
}

fn parse_file(text: &str, structs: &mut BTreeMap<String, GoStruct>) {
    let mut current: Option<(String, GoStruct)> = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct{}")) {
            structs.insert(name.to_string(), GoStruct::default());
        } else if let Some(name) = line.strip_prefix("type ").and_then(|rest| rest.strip_suffix(" struct {")) {
            current = Some((name.to_string(), GoStruct::default()));
        } else if line == "}" {
            if let Some((name, decl)) = current.take() {
                structs.insert(name, decl);
            }
        } else if let Some((_, decl)) = current.as_mut() {
            let line = line.trim();
            if ["TypeMeta ", "metav1.TypeMeta ", "v1.TypeMeta "].iter().any(|word| line.starts_with(word)) {
                decl.type_meta = true;
            } else if let Some(field) = parse_field(line) {
                decl.fields.push(field);
            }
        }
    }
}

fn parse_field(line: &str) -> Option<GoField> {
    if line.starts_with("//") {
        return None;
    }
    let mut parts = line.split('`');
    let declaration = parts.next()?.trim();
    let tags = parts.next()?;
    let protobuf = tag_value(tags, "protobuf")?;
    let tag = protobuf.split(',').nth(1)?.parse().ok()?;
    let json = tag_value(tags, "json")?;
    let mut options = json.split(',');
    let json_name = options.next().unwrap_or_default();
    let options: Vec<&str> = options.collect();
    let ty = declaration.split_whitespace().nth(1).unwrap_or(declaration);
    Some(GoField {
        json: if json_name == "-" { String::new() } else { json_name.to_string() },
        tag,
        pointer: ty.starts_with('*'),
        omit_empty: options.contains(&"omitempty"),
        omit_zero: options.contains(&"omitzero"),
        named: named_type(ty),
    })
}

fn tag_value<'a>(tags: &'a str, key: &str) -> Option<&'a str> {
    let at = tags.find(&format!("{key}:\""))?;
    let rest = &tags[at + key.len() + 2..];
    rest.split('"').next()
}

/// `*RestartPolicy`, `[]v1.Protocol`, `map[ResourceName]string` -> the element's named type, if it has one.
fn named_type(ty: &str) -> Option<String> {
    const BUILT_IN: &[&str] = &["string", "bool", "int", "int32", "int64", "float64", "byte", "[]byte"];
    let element = ty.trim_start_matches('*').trim_start_matches("[]");
    let element =
        element.strip_prefix("map[").and_then(|rest| rest.split_once(']')).map_or(element, |(_, value)| value);
    if BUILT_IN.contains(&element) || element.starts_with("[]") {
        return None;
    }
    Some(element.to_string())
}
