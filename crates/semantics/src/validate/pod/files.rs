//! Files in volumes: where they lie, their modes, and what of the pod they tell.

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath};

use super::env::{FILE_FIELDS, validate_field_ref, validate_resource_ref};
use crate::field::{Errors, Path};
use crate::validate::volume_source::{require, validate_file_path};

const MODE_DETAIL: &str = "must be a number between 0 and 0777 (octal), both inclusive";

pub(super) fn validate_mode(mode: Option<i32>, path: Path, errors: &mut Errors) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(path, mode, MODE_DETAIL);
    }
}

/// The keys of a ConfigMap or Secret that become files.
pub(super) fn validate_items(items: &Option<Vec<KeyToPath>>, path: &Path, errors: &mut Errors) {
    for (index, item) in items.iter().flatten().enumerate() {
        let path = path.child("items").index(index);
        require(&[("key", &item.key), ("path", &item.path)], &path, errors);
        validate_file_path(&item.path, &path.child("path"), errors);
        validate_mode(item.mode, path.child("mode"), errors);
    }
}

/// One file of the downward API; upstream says where in the volume an error is, not in which file.
pub(super) fn validate_downward_file(file: &DownwardAPIVolumeFile, path: &Path, errors: &mut Errors) {
    require(&[("path", &file.path)], path, errors);
    validate_file_path(&file.path, &path.child("path"), errors);
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            validate_field_ref(field, &FILE_FIELDS, &path.child("fieldRef"), errors);
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.invalid(path.clone(), "resource", detail);
            }
        }
        (None, Some(resource)) => validate_resource_ref(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path.clone(), "one of fieldRef and resourceFieldRef is required"),
    }
    validate_mode(file.mode, path.child("mode"), errors);
}
