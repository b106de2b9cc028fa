//! Sets of field paths, as `managedFields` writes them (`FieldsV1`).
//!
//! A set is a tree. Its edges are path elements in their written form: `f:name` for a field, `k:{...}` for a list element
//! by its keys, `v:...` for a set element by its value, `i:0` for a position. A node says whether its own path is in the
//! set (written `.` where it also has children). Input and output are JSON; unknown forms are refused.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A set of paths.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FieldSet(BTreeMap<String, Node>);

#[derive(Debug, Clone, PartialEq, Default)]
struct Node {
    member: bool,
    children: FieldSet,
}

impl FieldSet {
    /// Reads `fieldsV1`. `None`: a key has none of the four forms.
    pub fn parse(fields: &Value) -> Option<Self> {
        let mut set = Self::default();
        for (key, value) in fields.as_object()? {
            if key == "." {
                continue;
            }
            if !["f:", "k:", "v:", "i:"].iter().any(|prefix| key.starts_with(prefix)) {
                return None;
            }
            let children = Self::parse(value)?;
            let member = children.0.is_empty() || value.get(".").is_some();
            set.0.insert(key.clone(), Node { member, children });
        }
        Some(set)
    }

    /// Writes `fieldsV1`.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        for (element, node) in &self.0 {
            let mut value = node.children.to_value();
            if node.member && !node.children.0.is_empty() {
                value["."] = json!({});
            }
            map.insert(element.clone(), value);
        }
        Value::Object(map)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one path.
    pub fn insert(&mut self, path: &[String]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.0.entry(first.clone()).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    /// True if the one-element path `element` is in the set.
    pub fn has(&self, element: &str) -> bool {
        self.0.get(element).is_some_and(|node| node.member)
    }

    /// The paths below `element`, without it.
    pub fn below(&self, element: &str) -> Option<&FieldSet> {
        self.0.get(element).map(|node| &node.children).filter(|set| !set.is_empty())
    }

    /// Paths in either.
    #[must_use]
    pub fn union(mut self, other: &FieldSet) -> Self {
        for (element, theirs) in &other.0 {
            match self.0.get_mut(element) {
                Some(ours) => {
                    ours.member |= theirs.member;
                    ours.children = std::mem::take(&mut ours.children).union(&theirs.children);
                }
                None => {
                    self.0.insert(element.clone(), theirs.clone());
                }
            }
        }
        self
    }

    /// Paths in both.
    #[must_use]
    pub fn intersection(&self, other: &FieldSet) -> Self {
        let common = self.0.iter().filter_map(|(element, ours)| {
            let theirs = other.0.get(element)?;
            let children = ours.children.intersection(&theirs.children);
            let member = ours.member && theirs.member;
            (member || !children.is_empty()).then(|| (element.clone(), Node { member, children }))
        });
        Self(common.collect())
    }

    /// Paths not in `other`. A path of `other` removes only itself, not what is below it.
    #[must_use]
    pub fn difference(mut self, other: &FieldSet) -> Self {
        self.0.retain(|element, ours| {
            if let Some(theirs) = other.0.get(element) {
                ours.member &= !theirs.member;
                ours.children = std::mem::take(&mut ours.children).difference(&theirs.children);
            }
            ours.member || !ours.children.is_empty()
        });
        self
    }

    /// Paths neither at nor below a path of fields.
    #[must_use]
    pub fn without_prefix(mut self, fields: &[&str]) -> Self {
        let Some((first, rest)) = fields.split_first() else { return Self::default() };
        let element = field_element(first);
        if rest.is_empty() {
            self.0.remove(&element);
        } else if let Some(mut node) = self.0.remove(&element) {
            node.children = node.children.without_prefix(rest);
            if node.member || !node.children.is_empty() {
                self.0.insert(element, node);
            }
        }
        self
    }

    /// Marks the elements with children that `named` knows as members, with the set below each for recursion.
    pub(super) fn mark_members<S: Copy>(&self, shape: S, descend: &dyn Fn(S, &str) -> (bool, S)) -> Self {
        let marked = self.0.iter().map(|(element, node)| {
            let (named, below) = descend(shape, element);
            let member = node.member || named;
            (element.clone(), Node { member, children: node.children.mark_members(below, descend) })
        });
        Self(marked.collect())
    }

    /// Every path in the set, printed as in conflict messages: `.spec.containers[name="a"].image`; at each level what is in the
    /// set itself comes before what is below it.
    pub fn printed_paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.print_below("", &mut paths);
        paths
    }

    fn print_below(&self, prefix: &str, paths: &mut Vec<String>) {
        let printed = |element: &String| format!("{prefix}{}", print_element(element));
        paths.extend(self.0.iter().filter(|(_, node)| node.member).map(|(element, _)| printed(element)));
        for (element, node) in &self.0 {
            node.children.print_below(&printed(element), paths);
        }
    }
}

/// The written form of a field.
pub fn field_element(name: &str) -> String {
    format!("f:{name}")
}

/// The written form of an element of a set.
pub fn value_element(value: &Value) -> String {
    format!("v:{value}")
}

/// The written form of a list element with these keys.
pub fn key_element(keys: Map<String, Value>) -> String {
    format!("k:{}", Value::Object(keys))
}

fn print_element(element: &str) -> String {
    let (form, rest) = element.split_at(2);
    match form {
        "f:" => format!(".{rest}"),
        "v:" => format!("[={rest}]"),
        "k:" => {
            let keys: Map<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("[{}]", pairs.join(","))
        }
        _ => format!("[{rest}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::parse(&value).unwrap()
    }

    #[test]
    fn sets_are_read_and_written() {
        let fields =
            json!({"f:a": {".": {}, "f:b": {}}, "f:c": {"k:{\"name\":\"x\"}": {}}, "f:d": {"v:1": {}, "i:0": {}}});
        assert_eq!(set(fields.clone()).to_value(), fields);
        assert_eq!(FieldSet::parse(&json!({"a": {}})), None);
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
        let b = set(json!({"f:a": {}, "f:d": {}}));
        assert_eq!(a.clone().union(&b).to_value(), json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}, "f:d": {}}));
        assert_eq!(a.intersection(&b).to_value(), json!({"f:a": {}}));
        assert_eq!(a.clone().difference(&b).to_value(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        assert_eq!(a.clone().without_prefix(&["a"]).to_value(), json!({"f:c": {}}));
        assert_eq!(a.without_prefix(&["a", "b"]).to_value(), json!({"f:a": {}, "f:c": {}}));
    }

    #[test]
    fn paths_read_as_in_conflicts() {
        let paths =
            set(json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {"f:image": {}}}, "f:x": {"v:\"y\"": {}}}}));
        assert_eq!(paths.printed_paths(), [".spec.containers[name=\"a\"].image", ".spec.x[=\"y\"]"]);
    }
}
