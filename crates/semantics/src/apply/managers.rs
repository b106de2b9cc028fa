//! The managers of an object: `metadata.managedFields` as a list of owners with their field sets.
//!
//! Input and output are the JSON entries. An owner is identified by manager, operation, subresource and, for updates, API
//! version. Entries that cannot be read make the whole list count as empty, as upstream does for updates.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::field_set::FieldSet;

/// More update managers than this are merged into one.
const UPDATE_MANAGERS_MAX: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// One owner.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manager {
    pub(super) name: String,
    pub(super) applied: bool,
    pub(super) api_version: String,
    pub(super) subresource: String,
    /// RFC 3339; `""` if unknown.
    pub(super) time: String,
    pub(super) fields: FieldSet,
}

impl Manager {
    pub(super) fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.applied == other.applied
            && self.subresource == other.subresource
            && (self.applied || self.api_version == other.api_version)
    }

    /// The owner in conflict messages.
    pub(super) fn printed(&self) -> String {
        let mut text = crate::field::quote(&self.name);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {}", crate::field::quote(&self.subresource)));
        }
        if !self.applied {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }

    fn parse(entry: &Value) -> Option<Self> {
        let text = |field: &str| entry[field].as_str().unwrap_or_default().to_owned();
        let applied = match entry["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let fields = match &entry["fieldsV1"] {
            Value::Null => FieldSet::default(),
            fields => FieldSet::parse(fields)?,
        };
        Some(Self {
            name: text("manager"),
            applied,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields,
        })
    }

    fn to_value(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.applied { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.to_value(),
        });
        if !self.time.is_empty() {
            entry["time"] = json!(self.time);
        }
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    /// Applies before updates, then by time, name, version, subresource.
    fn order(&self, other: &Manager) -> Ordering {
        let key =
            |m: &Manager| (!m.applied, m.time.clone(), m.name.clone(), m.api_version.clone(), m.subresource.clone());
        key(self).cmp(&key(other))
    }
}

/// All owners of an object.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Managers(Vec<Manager>);

impl FromIterator<Manager> for Managers {
    fn from_iter<I: IntoIterator<Item = Manager>>(managers: I) -> Self {
        Self(managers.into_iter().collect())
    }
}

impl IntoIterator for Managers {
    type Item = Manager;
    type IntoIter = std::vec::IntoIter<Manager>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Managers {
    /// Reads `metadata.managedFields`; what cannot be read counts as no entries.
    pub(super) fn of(object: &Value) -> Self {
        let entries = object["metadata"]["managedFields"].as_array();
        let parsed: Option<Vec<Manager>> = entries.into_iter().flatten().map(Manager::parse).collect();
        Self(parsed.unwrap_or_default())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn find(&self, who: &Manager) -> Option<&Manager> {
        self.0.iter().find(|manager| manager.is(who))
    }

    pub(super) fn others<'a>(&'a self, who: &'a Manager) -> impl Iterator<Item = &'a Manager> {
        self.0.iter().filter(move |manager| !manager.is(who))
    }

    /// Takes `lost` from every manager but `who`.
    pub(super) fn take_from_others(&mut self, who: Option<&Manager>, lost: &FieldSet) {
        for manager in &mut self.0 {
            if who.is_none_or(|who| !manager.is(who)) {
                manager.fields = std::mem::take(&mut manager.fields).difference(lost);
            }
        }
        self.0.retain(|manager| !manager.fields.is_empty());
    }

    /// Puts `manager` in the place of the one with its identity; an empty set removes it.
    pub(super) fn set(&mut self, manager: Manager) {
        self.0.retain(|other| !other.is(&manager));
        if !manager.fields.is_empty() {
            self.0.push(manager);
        }
    }

    /// Every path that someone owns.
    pub(super) fn all_fields(&self) -> FieldSet {
        self.0.iter().fold(FieldSet::default(), |set, manager| set.union(&manager.fields))
    }

    /// Merges the oldest update managers of one API version until at most ten are left.
    pub(super) fn cap(&mut self) {
        let mut count = self.0.iter().filter(|manager| !manager.applied).count();
        if count <= UPDATE_MANAGERS_MAX {
            return;
        }
        self.0.sort_by(Manager::order);
        let mut kept: Vec<Manager> = Vec::new();
        for manager in std::mem::take(&mut self.0) {
            let mergeable = !manager.applied && count > UPDATE_MANAGERS_MAX;
            let same = |other: &&mut Manager| !other.applied && other.api_version == manager.api_version;
            match kept.iter_mut().find(same) {
                Some(bucket) if mergeable => {
                    bucket.name = ANCIENT.to_owned();
                    bucket.subresource.clear();
                    bucket.time = manager.time;
                    bucket.fields = std::mem::take(&mut bucket.fields).union(&manager.fields);
                    count -= 1;
                }
                _ => kept.push(manager),
            }
        }
        self.0 = kept;
    }

    /// Writes `metadata.managedFields`.
    pub(super) fn write_to(mut self, object: &mut Value) {
        let meta = crate::strategy::metadata(object);
        if self.0.is_empty() {
            meta.remove("managedFields");
            return;
        }
        self.0.sort_by(Manager::order);
        meta.insert("managedFields".to_owned(), self.0.iter().map(Manager::to_value).collect());
    }
}
