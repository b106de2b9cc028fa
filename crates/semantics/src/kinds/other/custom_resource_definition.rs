//! CustomResourceDefinition: names complete each other, one version is stored, the name is `plural.group`.
//!
//! Works on the untyped form: schemas pass through as they are. What the schemas themselves must satisfy (structural,
//! pruning, CEL) is not checked here.

use serde_json::{Value, json};

use crate::field::{Errors, Path};
use crate::names::{dns1035_label, dns1123_subdomain, subdomain_name};
use crate::strategy::{Context, Generation, Shape, StatusMetadata, Strategy, Subresource, Write};

pub struct CustomResourceDefinitionStrategy;

impl Strategy for CustomResourceDefinitionStrategy {
    fn shape(&self) -> Shape {
        Shape::new(subdomain_name)
            .any_finalizers()
            .generation(Generation::Spec)
            .with_status()
            .status_metadata(StatusMetadata::Keep)
    }

    fn default(&self, object: &mut Value) -> Result<(), String> {
        let spec = &mut object["spec"];
        if !spec.is_object() {
            *spec = json!({});
        }
        fill(spec, "scope", json!("Namespaced"));
        fill(spec, "conversion", json!({"strategy": "None"}));
        let webhook = &mut spec["conversion"]["webhook"];
        if webhook["clientConfig"]["service"].is_object() {
            fill(&mut webhook["clientConfig"]["service"], "port", json!(443));
        }
        if spec["conversion"]["webhook"].is_null() {
            remove(&mut spec["conversion"], "webhook");
        }
        default_names(&mut spec["names"]);
        Ok(())
    }

    fn create(&self, _context: &Context, object: &mut Value) -> Result<Vec<String>, Errors> {
        let stored: Vec<&str> = storage_versions(object).collect();
        object["status"] =
            json!({ "storedVersions": stored, "conditions": [], "acceptedNames": {"plural": "", "kind": ""} });
        finish(validate(object))
    }

    fn update(&self, write: &Write<'_>, object: &mut Value, old: &Value) -> Result<Vec<String>, Errors> {
        if write.sub == Subresource::Status {
            return Ok(Vec::new());
        }
        let new: Vec<String> = storage_versions(object).map(str::to_owned).collect();
        if let Some(stored) = object["status"]["storedVersions"].as_array_mut() {
            for version in new.iter().filter(|version| !stored.iter().any(|v| v == *version)).collect::<Vec<_>>() {
                stored.push(json!(version));
            }
        }
        let mut errors = validate(object);
        for field in ["group", "scope"] {
            if object["spec"][field] != old["spec"][field] {
                errors.invalid(Path::root("spec").child(field), object["spec"][field].clone(), "field is immutable");
            }
        }
        for field in ["plural", "kind"] {
            if object["spec"]["names"][field] != old["spec"]["names"][field] {
                let path = Path::root("spec").child("names").child(field);
                errors.invalid(path, object["spec"]["names"][field].clone(), "field is immutable");
            }
        }
        validate_stored(object, &mut errors);
        finish(errors)
    }
}

fn finish(errors: Errors) -> Result<Vec<String>, Errors> {
    if errors.is_empty() { Ok(Vec::new()) } else { Err(errors) }
}

fn fill(object: &mut Value, field: &str, value: Value) {
    if object[field].is_null() || object[field] == "" {
        object[field] = value;
    }
}

fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

fn default_names(names: &mut Value) {
    if !names.is_object() {
        *names = json!({});
    }
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if kind.is_empty() {
        return;
    }
    fill(names, "singular", json!(kind.to_lowercase()));
    fill(names, "listKind", json!(format!("{kind}List")));
}

fn versions(object: &Value) -> impl Iterator<Item = &Value> {
    object["spec"]["versions"].as_array().into_iter().flatten()
}

fn storage_versions(object: &Value) -> impl Iterator<Item = &str> {
    versions(object).filter(|version| version["storage"] == true).filter_map(|version| version["name"].as_str())
}

fn validate(object: &Value) -> Errors {
    let mut errors = Errors::new();
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (group, plural) = (text(&spec["group"]), text(&spec["names"]["plural"]));
    let name = text(&object["metadata"]["name"]);
    if name != format!("{plural}.{group}") {
        let path = Path::root("metadata").child("name");
        errors.invalid(path, name, "must be spec.names.plural+\".\"+spec.group");
    }
    let path = Path::root("spec");
    if group.is_empty() {
        errors.required(path.child("group"), "");
    } else {
        errors.invalid_each(&path.child("group"), &group, dns1123_subdomain(&group));
        if group.split('.').count() < 2 {
            errors.invalid(path.child("group"), group, "should be a domain with at least one dot");
        }
    }
    match spec["scope"].as_str().unwrap_or_default() {
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported(path.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    let names = path.child("names");
    for field in ["plural", "singular", "kind", "listKind"] {
        let value = text(&spec["names"][field]);
        if value.is_empty() {
            errors.required(names.child(field), "");
        } else {
            let lower = value.to_lowercase();
            errors.invalid_each(&names.child(field), &value, dns1035_label(&lower));
        }
    }
    validate_versions(object, &path.child("versions"), &mut errors);
    errors
}

fn validate_versions(object: &Value, path: &Path, errors: &mut Errors) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, version) in versions(object).enumerate() {
        let name = version["name"].as_str().unwrap_or_default();
        if !seen.insert(name) {
            errors.invalid(path.index(index).child("name"), name, "must contain unique version names");
        }
        errors.invalid_each(&path.index(index).child("name"), name, dns1035_label(name));
        if version["schema"]["openAPIV3Schema"].is_null() {
            errors.required(path.index(index).child("schema").child("openAPIV3Schema"), "schemas are required");
        }
    }
    if storage_versions(object).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.invalid(path.clone(), object["spec"]["versions"].clone(), detail);
    }
}

fn validate_stored(object: &Value, errors: &mut Errors) {
    let path = Path::root("status").child("storedVersions");
    for (index, stored) in object["status"]["storedVersions"].as_array().into_iter().flatten().enumerate() {
        if !versions(object).any(|version| version["name"] == *stored) {
            errors.invalid(path.index(index), stored.clone(), "must appear in spec.versions");
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, run_create};
    use serde_json::{Value, json};

    const GROUP: &str = "apiextensions.k8s.io";

    fn definition(name: &str) -> Value {
        json!({"metadata": {"name": name}, "spec": {"group": "example.com", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}})
    }

    #[test]
    fn names_are_completed_and_the_stored_version_noted() {
        let made = run_create(GROUP, "v1", "CustomResourceDefinition", definition("foos.example.com")).unwrap();
        assert_eq!(made["spec"]["names"]["listKind"], "FooList");
        assert_eq!(made["spec"]["names"]["singular"], "foo");
        assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    }

    #[test]
    fn the_name_says_plural_and_group() {
        check_create(
            GROUP,
            "v1",
            "CustomResourceDefinition",
            definition("foo.example.com"),
            "metadata.name: Invalid value: \"foo.example.com\": must be spec.names.plural+\".\"+spec.group",
        );
    }
}
