//! YAML bodies. Input: bytes. Output: the value of the first document; those after it are not looked at.

use serde_json::Value;

/// The error is the first of the text, without a picture of where it is.
pub fn yaml(bytes: &[u8]) -> Result<Value, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("yaml: {error}"))?;
    serde_saphyr::from_str(first_document(text)).map_err(|error| format!("yaml: {}", error.without_snippet()))
}

/// The stream up to the marker that ends its first document. A marker stands at the beginning of a line, even within a
/// scalar; one before any content begins the document.
fn first_document(text: &str) -> &str {
    let mut begun = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let is = |marker: &str| {
            line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        let starts = is("---");
        if begun && (starts || is("...")) {
            return &text[..at];
        }
        let trimmed = line.trim();
        let is_content = !trimmed.is_empty() && !trimmed.starts_with('#') && !line.starts_with('%');
        begun |= starts || is_content;
        at += line.len();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_first_document_counts() {
        let check = |text: &str, expect: Value| assert_eq!(yaml(text.as_bytes()).unwrap(), expect, "{text}");
        check("a: 1\n---\nb: 2\n", json!({"a": 1}));
        check("# c\n---\na: 1\n---\n: [\n", json!({"a": 1}));
        check("%YAML 1.2\n---\na: 1\n...\n", json!({"a": 1}));
        check("--- {a: 1}\n--- {b: 2}", json!({"a": 1}));
        check("---\n---\na: 1\n", Value::Null);
        check("a: ---\nb: |\n  ---\n  x\n", json!({"a": "---", "b": "---\nx\n"}));
    }
}
