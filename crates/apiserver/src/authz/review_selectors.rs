//! The selectors of a review's resource attributes, as far as this server can read them.
//!
//! Input: `fieldSelector` or `labelSelector` of the review, validated. Output: the selector as a request would carry it, and
//! whether something was left out. Invariant: what cannot be read only widens the question, so an "allowed" stays true.

use api::selector::{FieldSelector, LabelSelector};
use serde_json::Value;

/// A selector, and how much of what was asked it holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    pub text: String,
    pub rest: Rest,
}

/// What could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    Some,
    All,
}

impl Rest {
    /// As a review's `evaluationError` says it of `field`.
    pub fn to_problem(self, field: &str) -> Option<String> {
        let how = match self {
            Self::Nothing => return None,
            Self::Some => "partially ignored",
            Self::All => "ignored",
        };
        Some(format!("spec.resourceAttributes.{field} {how} due to parse error"))
    }
}

pub fn read_field_selector(selector: &Value) -> Read {
    read(selector, |raw| FieldSelector::parse(raw).is_ok(), field_term)
}

pub fn read_label_selector(selector: &Value) -> Read {
    read(selector, |raw| LabelSelector::parse(raw).is_ok(), label_term)
}

fn read(selector: &Value, is_readable: fn(&str) -> bool, term: fn(&Value) -> Option<String>) -> Read {
    let requirements = selector["requirements"].as_array().map(Vec::as_slice).unwrap_or_default();
    if requirements.is_empty() {
        let raw = selector["rawSelector"].as_str().unwrap_or_default();
        let readable = is_readable(raw);
        let text = if readable { raw.to_owned() } else { String::new() };
        return Read { text, rest: if readable { Rest::Nothing } else { Rest::All } };
    }
    let terms: Vec<String> = requirements.iter().filter_map(term).collect();
    let rest = match terms.len() {
        all if all == requirements.len() => Rest::Nothing,
        0 => Rest::All,
        _ => Rest::Some,
    };
    Read { text: terms.join(","), rest }
}

fn values(requirement: &Value) -> Vec<&str> {
    requirement["values"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Field selectors know equality with one value only.
fn field_term(requirement: &Value) -> Option<String> {
    let operator = match requirement["operator"].as_str()? {
        "In" => "=",
        "NotIn" => "!=",
        _ => return None,
    };
    match values(requirement).as_slice() {
        [value] => Some(format!("{}{operator}{}", requirement["key"].as_str()?, escaped(value))),
        _ => None,
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=")
}

fn label_term(requirement: &Value) -> Option<String> {
    let (key, values) = (requirement["key"].as_str()?, values(requirement).join(","));
    match requirement["operator"].as_str()? {
        "In" => Some(format!("{key} in ({values})")),
        "NotIn" => Some(format!("{key} notin ({values})")),
        "Exists" => Some(key.to_owned()),
        "DoesNotExist" => Some(format!("!{key}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields() {
        let check = |selector: Value, text: &str, rest: Rest| {
            assert_eq!(read_field_selector(&selector), Read { text: text.to_owned(), rest }, "{selector}");
        };
        let requirement = |operator: &str, values: &[&str]| json!({"key": "a", "operator": operator, "values": values});
        check(Value::Null, "", Rest::Nothing);
        check(json!({"rawSelector": "a=b"}), "a=b", Rest::Nothing);
        check(json!({"rawSelector": "a=b,c in"}), "", Rest::All);
        check(json!({"requirements": [requirement("In", &["b=,c"])]}), "a=b\\=\\,c", Rest::Nothing);
        check(json!({"requirements": [requirement("NotIn", &["b"])]}), "a!=b", Rest::Nothing);
        check(json!({"requirements": [requirement("In", &["b", "c"])]}), "", Rest::All);
        check(json!({"requirements": [requirement("Exists", &[])]}), "", Rest::All);
        let newer = requirement("Near", &["b"]);
        check(json!({"requirements": [newer, requirement("In", &["b"])]}), "a=b", Rest::Some);
    }

    #[test]
    fn labels() {
        let check = |selector: Value, text: &str, rest: Rest| {
            let read = read_label_selector(&selector);
            assert!(LabelSelector::parse(&read.text).is_ok());
            assert_eq!(read, Read { text: text.to_owned(), rest }, "{selector}");
        };
        let requirement = |operator: &str, values: &[&str]| json!({"key": "a", "operator": operator, "values": values});
        check(json!({"rawSelector": "a in (b)"}), "a in (b)", Rest::Nothing);
        check(json!({"rawSelector": "!!"}), "", Rest::All);
        check(json!({"requirements": [requirement("In", &["b", "c"])]}), "a in (b,c)", Rest::Nothing);
        check(json!({"requirements": [requirement("NotIn", &["b"])]}), "a notin (b)", Rest::Nothing);
        let both = json!({"requirements": [requirement("Exists", &[]), requirement("DoesNotExist", &[])]});
        check(both, "a,!a", Rest::Nothing);
        check(json!({"requirements": [requirement("Near", &["b"]), requirement("Exists", &[])]}), "a", Rest::Some);
    }

    #[test]
    fn problems() {
        assert_eq!(Rest::Nothing.to_problem("fieldSelector"), None);
        let check = |rest: Rest, expect: &str| assert_eq!(rest.to_problem("fieldSelector").as_deref(), Some(expect));
        check(Rest::Some, "spec.resourceAttributes.fieldSelector partially ignored due to parse error");
        check(Rest::All, "spec.resourceAttributes.fieldSelector ignored due to parse error");
    }
}
