//! ConfigMap: keys are file names, the whole is bounded, `immutable` cannot be taken back.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::field::{Errors, Path};
use crate::names::{config_key, subdomain_name};
use crate::strategy::{Shape, Write};
use crate::typed::Rules;

/// Data of one ConfigMap or Secret may not be larger than this.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;

pub struct ConfigMapRules;

impl Rules for ConfigMapRules {
    type Object = ConfigMap;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn validate_create(object: &ConfigMap, errors: &mut Errors) {
        validate(object, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &ConfigMap, old: &ConfigMap, errors: &mut Errors) {
        if old.immutable == Some(true) {
            if object.immutable != Some(true) {
                errors.forbidden(Path::root("immutable"), "field is immutable when `immutable` is set");
            }
            if !same_map(&object.data, &old.data) {
                errors.forbidden(Path::root("data"), "field is immutable when `immutable` is set");
            }
            if !same_map(&object.binary_data, &old.binary_data) {
                errors.forbidden(Path::root("binaryData"), "field is immutable when `immutable` is set");
            }
        }
        validate(object, errors);
    }
}

fn validate(object: &ConfigMap, errors: &mut Errors) {
    let mut size = 0;
    for (key, value) in object.data.iter().flatten() {
        let path = Path::root("data").key(key);
        errors.invalid_each(&path, key, config_key(key));
        if object.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
            errors.invalid(path, key.as_str(), "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in object.binary_data.iter().flatten() {
        errors.invalid_each(&Path::root("binaryData").key(key), key, config_key(key));
        size += value.0.len();
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(Path::default(), DATA_BYTES_MAX);
    }
}

/// Absent and empty maps are equal.
pub(super) fn same_map<V: PartialEq>(a: &Option<BTreeMap<String, V>>, b: &Option<BTreeMap<String, V>>) -> bool {
    let empty = BTreeMap::new();
    a.as_ref().unwrap_or(&empty) == b.as_ref().unwrap_or(&empty)
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update};
    use serde_json::json;

    #[test]
    fn keys_are_file_names() {
        check_create("", "v1", "ConfigMap", json!({"data": {"a.b": "x"}}), "");
        check_create(
            "",
            "v1",
            "ConfigMap",
            json!({"data": {"..": "x"}}),
            "data[..]: Invalid value: \"..\": must not be '..'",
        );
    }

    #[test]
    fn immutable_stays() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        check_update("", "v1", "ConfigMap", old.clone(), old.clone(), "");
        check_update(
            "",
            "v1",
            "ConfigMap",
            json!({"data": {"a": "2"}}),
            old,
            "[immutable: Forbidden: field is immutable when `immutable` is set, data: Forbidden: field is immutable when `immutable` is set]",
        );
    }
}
