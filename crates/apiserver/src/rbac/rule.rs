//! One policy rule: what it allows, what it covers, how it reads in an error.
//!
//! In: `rules[]` of a role as JSON. Out: [`Rule`] and pure functions on it.
//!
//! Invariant: the wildcard is `*` alone, except for `*/SUBRESOURCE` in resources and a trailing `*` in URLs; there are no
//! other patterns.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::authz::qualified_resource;
use crate::chain::Attributes;

/// A PolicyRule. A rule speaks of resources or of URLs; validation sees to that.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    pub groups: Vec<String>,
    pub resources: Vec<String>,
    pub urls: Vec<String>,
    pub names: Vec<String>,
    pub verbs: Vec<String>,
}

/// JSON names in the order of the struct.
const FIELDS: [&str; 5] = ["apiGroups", "resources", "nonResourceURLs", "resourceNames", "verbs"];

impl Rule {
    /// Lenient: what is not a list of strings counts as empty, so a broken rule grants nothing.
    pub fn parse(value: &Value) -> Self {
        let [groups, resources, urls, names, verbs] = FIELDS.map(|field| strings(&value[field]));
        Self { groups, resources, urls, names, verbs }
    }

    pub fn to_value(&self) -> Value {
        let lists = [&self.groups, &self.resources, &self.urls, &self.names, &self.verbs];
        let fields = FIELDS.iter().zip(lists).filter(|(_, list)| !list.is_empty());
        Value::Object(
            fields.map(|(field, list)| ((*field).to_owned(), Value::from(list.clone()))).collect::<Map<_, _>>(),
        )
    }

    /// Every right there is: what only a cluster administrator holds.
    pub fn everything() -> [Self; 2] {
        let all = || vec!["*".to_owned()];
        [
            Self { groups: all(), resources: all(), verbs: all(), ..Self::default() },
            Self { urls: all(), verbs: all(), ..Self::default() },
        ]
    }

    pub fn allows(&self, attributes: &Attributes) -> bool {
        if !has(&self.verbs, &attributes.verb) {
            return false;
        }
        if !attributes.is_resource {
            return self.urls.iter().any(|url| url_covers(url, &attributes.path));
        }
        has(&self.groups, &attributes.group)
            && (self.names.is_empty() || self.names.contains(&attributes.name))
            && self.resources.iter().any(|resource| resource_covers(resource, &qualified_resource(attributes)))
    }

    /// The rule as rules of one verb and one URL, or one verb, group, resource and name each.
    fn break_down(&self) -> Vec<Self> {
        let mut out = Vec::new();
        let one = |text: &String| vec![text.clone()];
        for verb in &self.verbs {
            for url in &self.urls {
                out.push(Self { urls: one(url), verbs: one(verb), ..Self::default() });
            }
        }
        for group in &self.groups {
            for resource in &self.resources {
                for verb in &self.verbs {
                    let single =
                        Self { groups: one(group), resources: one(resource), verbs: one(verb), ..Self::default() };
                    match self.names.is_empty() {
                        true => out.push(single),
                        false => {
                            out.extend(self.names.iter().map(|name| Self { names: one(name), ..single.clone() }));
                        }
                    }
                }
            }
        }
        out
    }

    /// Whether holding `self` includes `wanted`, a rule made by [`Rule::break_down`].
    fn covers(&self, wanted: &Self) -> bool {
        let names = if wanted.names.is_empty() {
            self.names.is_empty()
        } else {
            self.names.is_empty() || wanted.names.iter().all(|name| self.names.contains(name))
        };
        names
            && wanted.verbs.iter().all(|verb| has(&self.verbs, verb))
            && wanted.groups.iter().all(|group| has(&self.groups, group))
            && wanted.resources.iter().all(|want| self.resources.iter().any(|held| resource_covers(held, want)))
            && wanted.urls.iter().all(|want| self.urls.iter().any(|held| url_covers(held, want)))
    }

    /// Upstream's compact form: `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get"]}`.
    fn describe(&self) -> String {
        let parts = [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.urls),
            ("ResourceNames", &self.names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = parts
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quote_list(list)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// The parts of `wanted` that `held` does not include; empty when all is held.
pub fn find_missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(Rule::break_down).filter(|single| !held.iter().any(|rule| rule.covers(single))).collect()
}

/// Missing rights as the lines of an error, verbs of one resource together, sorted.
pub fn describe_missing(missing: &[Rule]) -> String {
    let mut merged: Vec<Rule> = Vec::new();
    for rule in missing {
        let same = merged.iter_mut().find(|known| {
            known.urls.is_empty()
                && rule.urls.is_empty()
                && (&known.groups, &known.resources, &known.names) == (&rule.groups, &rule.resources, &rule.names)
        });
        match same {
            Some(known) => known
                .verbs
                .extend(rule.verbs.iter().filter(|verb| !known.verbs.contains(verb)).cloned().collect::<Vec<_>>()),
            None => merged.push(rule.clone()),
        }
    }
    let lines: BTreeSet<String> = merged.iter().map(Rule::describe).collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// `["a" "b"]`, as upstream prints lists of strings.
pub fn quote_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|held| held == "*" || held == wanted)
}

fn resource_covers(held: &str, wanted: &str) -> bool {
    if held == "*" || held == wanted {
        return true;
    }
    match (held.strip_prefix("*/"), wanted.split_once('/')) {
        (Some(held), Some((_, subresource))) => held == subresource,
        _ => false,
    }
}

fn url_covers(held: &str, wanted: &str) -> bool {
    held == "*" || held == wanted || (held.ends_with('*') && wanted.starts_with(held.trim_end_matches('*')))
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}
