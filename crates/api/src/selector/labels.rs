//! Label selectors: requirements over a set of labels.
//!
//! From text ([`LabelSelector::parse`]) or from the API's `LabelSelector` struct as a value
//! ([`LabelSelector::from_value`]); [`LabelSelector::matches`] takes any lookup of labels. Prints as upstream prints.

use std::fmt;

use serde_json::Value;

use super::label_key::{label_key_problems, label_value_problems};

/// Why a selector is invalid, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    /// The label is an integer greater than the value.
    GreaterThan,
    /// The label is an integer less than the value.
    LessThan,
}

impl Operator {
    /// As it is written in a selector string.
    pub fn symbol(self) -> &'static str {
        match self {
            Operator::Equals => "=",
            Operator::DoubleEquals => "==",
            Operator::NotEquals => "!=",
            Operator::In => "in",
            Operator::NotIn => "notin",
            Operator::Exists => "exists",
            Operator::DoesNotExist => "!",
            Operator::GreaterThan => "gt",
            Operator::LessThan => "lt",
        }
    }
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted, without duplicates when parsed from text.
    pub values: Vec<String>,
}

/// All requirements must hold; no requirement at all matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    /// Matches every object.
    pub fn everything() -> Self {
        LabelSelector::default()
    }

    /// Matches no object (an absent `LabelSelector` struct).
    pub fn nothing() -> Self {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements, nothing: false }
    }

    /// Parses `?labelSelector=`: `a=b,c in (d,e),!f`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        super::label_parse::parse(text).map(LabelSelector::new)
    }

    /// Reads the struct form (`matchLabels`, `matchExpressions`): `null` matches nothing, `{}` everything.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        if value.is_null() {
            return Ok(LabelSelector::nothing());
        }
        let mut requirements = Vec::new();
        for (key, value) in value["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            let operator = match expression["operator"].as_str().unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(expression["key"].as_str().unwrap_or_default(), operator, values)?);
        }
        Ok(LabelSelector::new(requirements))
    }

    /// Reads a plain map of labels, as in a Service's selector. Not validated.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let equals = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        LabelSelector::new(labels.into_iter().map(equals).collect())
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether the labels satisfy every requirement; `lookup` gives a label's value.
    pub fn matches<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(lookup(&requirement.key)))
    }

    /// Whether the `metadata.labels` of an object match.
    pub fn matches_object(&self, object: &Value) -> bool {
        let labels = object["metadata"]["labels"].as_object();
        self.matches(|key| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str))
    }
}

impl Requirement {
    /// Checks what upstream's constructor checks.
    pub fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Self, SelectorError> {
        let mut problems = Vec::new();
        let key_problems = label_key_problems(key);
        if !key_problems.is_empty() {
            problems.push(format!("key: Invalid value: {key:?}: {}", key_problems.join("; ")));
        }
        if let Some(problem) = count_problem(operator, values.len()) {
            let shown = serde_json::Value::from(values.clone());
            problems.push(format!("values: Invalid value: {shown}: {problem}"));
        }
        for (at, value) in values.iter().enumerate() {
            let integer = matches!(operator, Operator::GreaterThan | Operator::LessThan);
            if integer && value.parse::<i64>().is_err() {
                let problem = "for 'Gt', 'Lt' operators, the value must be an integer";
                problems.push(format!("values[{at}]: Invalid value: {value:?}: {problem}"));
            }
        }
        for (at, value) in values.iter().enumerate() {
            let value_problems = label_value_problems(value);
            if !value_problems.is_empty() {
                problems.push(format!("values[{at}][{key}]: Invalid value: {value:?}: {}", value_problems.join("; ")));
            }
        }
        match problems.len() {
            0 => Ok(Requirement { key: key.to_owned(), operator, values }),
            1 => Err(SelectorError(problems.remove(0))),
            _ => Err(SelectorError(format!("[{}]", problems.join(", ")))),
        }
    }

    /// Whether a label with this value (or its absence) satisfies the requirement.
    pub fn matches(&self, label: Option<&str>) -> bool {
        let has = |label: &str| self.values.iter().any(|value| value == label);
        let compare = |holds: fn(i64, i64) -> bool| {
            let label: Option<i64> = label.and_then(|label| label.parse().ok());
            let bound: Option<i64> = self.values.first().and_then(|value| value.parse().ok());
            label.zip(bound).is_some_and(|(label, bound)| holds(label, bound))
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => label.is_some_and(has),
            Operator::NotEquals | Operator::NotIn => !label.is_some_and(has),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => compare(|label, bound| label > bound),
            Operator::LessThan => compare(|label, bound| label < bound),
        }
    }
}

fn count_problem(operator: Operator, count: usize) -> Option<&'static str> {
    match operator {
        Operator::In | Operator::NotIn if count == 0 => Some("for 'in', 'notin' operators, values set can't be empty"),
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if count != 1 => {
            Some("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if count != 0 => {
            Some("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan if count != 1 => {
            Some("for 'Gt', 'Lt' operators, exactly one value is required")
        }
        _ => None,
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        match self.operator {
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::In | Operator::NotIn => write!(f, "{key} {} ({values})", self.operator.symbol()),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
            _ => write!(f, "{key}{}{values}", self.operator.symbol()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(selector: &str, labels: &Value, expect: bool) {
        let object = json!({"metadata": {"labels": labels}});
        assert_eq!(LabelSelector::parse(selector).unwrap().matches_object(&object), expect, "{selector}");
    }

    #[test]
    fn matching() {
        let labels = json!({"app": "web", "tier": "5"});
        check("", &labels, true);
        check("app=web", &labels, true);
        check("app==web,tier!=6", &labels, true);
        check("app in (web,db),!gone", &labels, true);
        check("app notin (web)", &labels, false);
        check("other notin (web)", &labels, true);
        check("other", &labels, false);
        check("tier>4,tier<6", &labels, true);
        check("app>4", &labels, false);
    }

    #[test]
    fn struct_form() {
        let value = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "c", "operator": "In", "values": ["d", "e"]}, {"key": "x", "operator": "DoesNotExist"}]});
        let selector = LabelSelector::from_value(&value).unwrap();
        assert_eq!(selector.to_string(), "a=b,c in (d,e),!x");
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches(|_| None));
        assert!(LabelSelector::from_value(&json!({})).unwrap().matches(|_| None));
        let bad = json!({"matchExpressions": [{"key": "c", "operator": "Like"}]});
        let message = "\"Like\" is not a valid label selector operator";
        assert_eq!(LabelSelector::from_value(&bad), Err(SelectorError(message.to_owned())));
    }
}
