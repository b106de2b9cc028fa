//! Namespace: starts Active with the `kubernetes` finalizer and its name as a label.

use k8s_openapi::api::core::v1::Namespace;

use crate::defaults::fill_text;
use crate::field::{Errors, Path};
use crate::names::{finalizer_name, label_name, qualified_name};
use crate::strategy::{Context, Shape, Subresource, Write};
use crate::typed::Rules;

/// The finalizer that keeps a namespace until its contents are gone.
const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub struct NamespaceRules;

impl Rules for NamespaceRules {
    type Object = Namespace;
    const SHAPE: Shape = Shape::new(label_name).with_status();

    fn default(object: &mut Namespace) {
        fill_text(&mut object.status.get_or_insert_default().phase, "Active");
        label_with_name(object);
    }

    fn prepare_create(_context: &Context, object: &mut Namespace) {
        object.status.get_or_insert_default().phase = Some("Active".to_owned());
        let finalizers = object.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        label_with_name(object);
    }

    fn validate_create(object: &Namespace, errors: &mut Errors) {
        validate_finalizers(object, errors);
    }

    fn prepare_update(write: &Write<'_>, object: &mut Namespace, old: &Namespace) {
        match write.sub {
            Subresource::Main => {
                object.spec.get_or_insert_default().finalizers =
                    old.spec.as_ref().and_then(|spec| spec.finalizers.clone());
            }
            Subresource::Finalize => object.status.clone_from(&old.status),
            _ => {}
        }
        label_with_name(object);
    }

    fn validate_update(write: &Write<'_>, object: &Namespace, _old: &Namespace, errors: &mut Errors) {
        match write.sub {
            Subresource::Finalize => validate_finalizers(object, errors),
            Subresource::Status => validate_phase(object, errors),
            _ => {}
        }
    }
}

fn label_with_name(object: &mut Namespace) {
    if let Some(name) = object.metadata.name.clone().filter(|name| !name.is_empty()) {
        object.metadata.labels.get_or_insert_default().insert(NAME_LABEL.to_owned(), name);
    }
}

fn validate_finalizers(object: &Namespace, errors: &mut Errors) {
    let path = Path::root("spec").child("finalizers");
    for (index, name) in object.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten()).enumerate() {
        errors.invalid_each(&path.index(index), name, qualified_name(name));
        errors.invalid_each(&path.index(index), name, finalizer_name(name));
    }
}

fn validate_phase(object: &Namespace, errors: &mut Errors) {
    let phase = object.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
    let path = Path::root("status").child("Phase");
    match (object.metadata.deletion_timestamp.is_some(), phase) {
        (false, "Active") | (true, "Terminating") => {}
        (false, _) => errors.invalid(path, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
        (true, _) => errors.invalid(path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, run_create};
    use serde_json::json;

    #[test]
    fn a_new_namespace_is_active_labelled_and_finalized() {
        let made = run_create("", "v1", "Namespace", json!({"metadata": {"generateName": "e2e-"}})).unwrap();
        assert_eq!(made["metadata"]["name"], "e2e-abcde");
        assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "e2e-abcde");
        assert_eq!(made["status"]["phase"], "Active");
        assert_eq!(made["spec"]["finalizers"], json!(["kubernetes"]));
    }

    #[test]
    fn finalizers_are_standard_or_of_a_domain() {
        check_create("", "v1", "Namespace", json!({"spec": {"finalizers": ["orphan", "a.b/c"]}}), "");
        check_create(
            "",
            "v1",
            "Namespace",
            json!({"spec": {"finalizers": ["kubernetes", "other"]}}),
            "spec.finalizers[1]: Invalid value: \"other\": name is neither a standard finalizer name nor is it fully qualified",
        );
    }

    #[test]
    fn names_are_labels() {
        check_create(
            "",
            "v1",
            "Namespace",
            json!({"metadata": {"name": "a.b"}}),
            "metadata.name: Invalid value: \"a.b\": must not contain dots",
        );
    }
}
