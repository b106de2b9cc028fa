//! Environment variables: names, and where values come from.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, FileKeySelector, ObjectFieldSelector, PodSpec, ResourceFieldSelector, Volume,
};

use super::visit::all_containers;
use crate::amount::nanos_or_zero;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{config_key, dns1123_label, env_var_name, qualified_name, subdomain_name};
use crate::validate::volume_source::validate_no_backsteps;

const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

pub(super) fn validate_env(variables: &[EnvVar], path: &Path, errors: &mut Errors) {
    for (index, variable) in variables.iter().enumerate() {
        let path = path.index(index);
        if variable.name.is_empty() {
            errors.required(path.child("name"), "");
        } else {
            errors.invalid_each(&path.child("name"), &variable.name, env_var_name(&variable.name));
        }
        if let Some(source) = &variable.value_from {
            validate_source(source, text(&variable.value), &path.child("valueFrom"), errors);
        }
    }
}

pub(super) fn validate_env_from(sources: &[EnvFromSource], path: &Path, errors: &mut Errors) {
    for (index, source) in sources.iter().enumerate() {
        let at = path.index(index);
        let prefix = text(&source.prefix);
        if !prefix.is_empty() {
            errors.invalid_each(&at.child("prefix"), prefix, env_var_name(prefix));
        }
        let names = [
            ("configMapRef", source.config_map_ref.as_ref().map(|r| r.name.as_str())),
            ("secretRef", source.secret_ref.as_ref().map(|r| r.name.as_str())),
        ];
        let given: Vec<_> = names.into_iter().filter_map(|(field, name)| name.map(|name| (field, name))).collect();
        for (field, name) in &given {
            validate_reference(name, &at.child(field), errors);
        }
        match given.len() {
            0 => errors.invalid(path.clone(), "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(path.clone(), "", "may not have more than one field specified at a time"),
        }
    }
}

/// A whole ConfigMap or Secret; upstream lets its name end in a dash.
fn validate_reference(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        errors.required(path.child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), name, subdomain_name(name, true));
    }
}

fn validate_source(source: &EnvVarSource, value: &str, path: &Path, errors: &mut Errors) {
    let mut count = 0;
    if let Some(selector) = &source.field_ref {
        count += 1;
        validate_field_ref(selector, &ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(selector) = &source.resource_field_ref {
        count += 1;
        validate_resource_ref(selector, false, &path.child("resourceFieldRef"), errors);
    }
    let keys = [
        ("configMapKeyRef", source.config_map_key_ref.as_ref().map(|r| (r.name.as_str(), r.key.as_str()))),
        ("secretKeyRef", source.secret_key_ref.as_ref().map(|r| (r.name.as_str(), r.key.as_str()))),
    ];
    for (field, reference) in keys {
        let Some((name, key)) = reference else { continue };
        count += 1;
        errors.invalid_each(&path.child(field).child("name"), name, subdomain_name(name, false));
        if key.is_empty() {
            errors.required(path.child(field).child("key"), "");
        } else {
            errors.invalid_each(&path.child(field).child("key"), key, config_key(key));
        }
    }
    if let Some(file) = &source.file_key_ref {
        count += 1;
        validate_file_key(file, &path.child("fileKeyRef"), errors);
    }
    if count == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path.clone(), "", detail);
    } else if !value.is_empty() {
        errors.invalid(path.clone(), "", "may not be specified when `value` is not empty");
    } else if count > 1 {
        errors.invalid(path.clone(), "", "may not have more than one field specified at a time");
    }
}

fn validate_file_key(file: &FileKeySelector, path: &Path, errors: &mut Errors) {
    errors.required_each(&path.child("key"), &file.key, env_var_name(&file.key));
    errors.required_each(&path.child("volumeName"), &file.volume_name, dns1123_label(&file.volume_name));
    if file.path.is_empty() {
        errors.required(path.child("path"), "");
    } else {
        validate_no_backsteps(&file.path, &path.child("path"), "must not contain '..'", errors);
    }
}

/// Variables may come from files of empty directories only, which the pod's own containers fill.
pub(super) fn validate_file_volumes(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let volumes: BTreeMap<&str, &Volume> = spec.volumes.iter().flatten().map(|v| (v.name.as_str(), v)).collect();
    for (at, container) in all_containers(spec, path) {
        for (index, variable) in container.env.iter().enumerate() {
            let Some(file) = variable.value_from.as_ref().and_then(|source| source.file_key_ref.as_ref()) else {
                continue;
            };
            let path = at.child("env").index(index).child("valueFrom").child("fileKeyRef").child("volumeName");
            match volumes.get(file.volume_name.as_str()) {
                None => errors.not_found(path, file.volume_name.as_str()),
                Some(volume) if volume.empty_dir.is_none() => {
                    let detail = "referenced volume must be of type emptyDir";
                    errors.invalid(path, file.volume_name.as_str(), detail);
                }
                Some(_) => {}
            }
        }
    }
}

/// A field of the pod: one of `known`, or one entry of its labels or annotations.
pub(super) fn validate_field_ref(selector: &ObjectFieldSelector, known: &[&str], path: &Path, errors: &mut Errors) {
    if text(&selector.api_version).is_empty() {
        return errors.required(path.child("apiVersion"), "");
    }
    let field = selector.field_path.as_str();
    if field.is_empty() {
        return errors.required(path.child("fieldPath"), "");
    }
    if text(&selector.api_version) != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {}", text(&selector.api_version));
        return errors.invalid(path.child("fieldPath"), field, detail);
    }
    match subscript(field) {
        Some(("metadata.annotations", key)) => {
            let key = key.to_lowercase();
            errors.invalid_each(path, &key, qualified_name(&key));
        }
        Some(("metadata.labels", key)) => errors.invalid_each(path, key, qualified_name(key)),
        Some(_) => {
            let detail = format!("error converting fieldPath: field label does not support subscript: {field}");
            errors.invalid(path.child("fieldPath"), field, detail);
        }
        _ if is_field(field) && known.contains(&canonical(field)) => {}
        _ if is_field(field) => errors.not_supported(path.child("fieldPath"), canonical(field), known),
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {field}");
            errors.invalid(path.child("fieldPath"), field, detail);
        }
    }
}

fn is_field(field: &str) -> bool {
    let others = ["spec.host", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
    ENV_FIELDS.contains(&field) || FILE_FIELDS.contains(&field) || others.contains(&field)
}

/// Old clients call the node by another name.
fn canonical(field: &str) -> &str {
    if field == "spec.host" { "spec.nodeName" } else { field }
}

/// `a.b['key']` -> `a.b` and `key`.
fn subscript(field: &str) -> Option<(&str, &str)> {
    field.strip_suffix("']")?.split_once("['")
}

pub(super) fn validate_resource_ref(
    selector: &ResourceFieldSelector,
    in_volume: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let resource = selector.resource.as_str();
    let huge = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && text(&selector.container_name).is_empty() {
        errors.required(path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge {
        errors.not_supported(path.child("resource"), resource, &RESOURCES);
    }
    let divisor = selector.divisor.as_ref().filter(|divisor| nanos_or_zero(divisor) != 0);
    let Some(divisor) = divisor.map(|divisor| divisor.0.as_str()) else { return };
    let sizes = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
    let list = "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the";
    let detail = match resource.split_once('.').map(|(_, name)| name) {
        Some("cpu") if !matches!(divisor, "1m" | "1") => {
            "only divisor's values 1m and 1 are supported with the cpu resource".to_owned()
        }
        Some("memory") if !sizes.contains(&divisor) => format!("{list} memory resource"),
        Some("ephemeral-storage") if !sizes.contains(&divisor) => format!("{list} local ephemeral storage resource"),
        Some(name) if name.starts_with("hugepages-") && !sizes.contains(&divisor) => {
            format!("{list} hugepages resource")
        }
        _ => return,
    };
    errors.invalid(path.child("divisor"), resource, detail);
}
