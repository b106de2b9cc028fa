//! Secret: typed contents, bounded, `immutable` cannot be taken back. `stringData` is folded into `data`.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::config_map::{DATA_BYTES_MAX, same_map};
use crate::defaults::fill_text;
use crate::field::{Errors, Path};
use crate::names::{config_key, subdomain_name};
use crate::strategy::{Shape, Write};
use crate::typed::Rules;

pub struct SecretRules;

impl Rules for SecretRules {
    type Object = Secret;
    const SHAPE: Shape = Shape::new(subdomain_name);

    fn default(object: &mut Secret) {
        fill_text(&mut object.type_, "Opaque");
        if let Some(texts) = object.string_data.take() {
            let data = object.data.get_or_insert_default();
            data.extend(texts.into_iter().map(|(key, text)| (key, ByteString(text.into_bytes()))));
        }
    }

    fn validate_create(object: &Secret, errors: &mut Errors) {
        validate(object, errors);
    }

    fn prepare_update(_write: &Write<'_>, object: &mut Secret, old: &Secret) {
        if object.type_.as_deref().is_none_or(str::is_empty) {
            object.type_.clone_from(&old.type_);
        }
    }

    fn validate_update(_write: &Write<'_>, object: &Secret, old: &Secret, errors: &mut Errors) {
        if object.type_ != old.type_ {
            errors.invalid(Path::root("type"), object.type_.clone().unwrap_or_default(), "field is immutable");
        }
        if old.immutable == Some(true) {
            if object.immutable != Some(true) {
                errors.forbidden(Path::root("immutable"), "field is immutable when `immutable` is set");
            }
            if !same_map(&object.data, &old.data) {
                errors.forbidden(Path::root("data"), "field is immutable when `immutable` is set");
            }
        }
        validate(object, errors);
    }
}

fn validate(object: &Secret, errors: &mut Errors) {
    let data = Path::root("data");
    let mut size = 0;
    for (key, value) in object.data.iter().flatten() {
        errors.invalid_each(&data.key(key), key, config_key(key));
        size += value.0.len();
    }
    if size > DATA_BYTES_MAX {
        errors.too_long(data.clone(), DATA_BYTES_MAX);
    }
    validate_type(object, &data, errors);
}

fn validate_type(object: &Secret, data: &Path, errors: &mut Errors) {
    let value = |key: &str| object.data.as_ref().and_then(|d| d.get(key));
    let mut require = |key: &str, found: bool| {
        if !found {
            errors.required(data.key(key), "");
        }
    };
    match object.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let key = "kubernetes.io/service-account.name";
            let name = object.metadata.annotations.as_ref().and_then(|a| a.get(key));
            if name.is_none_or(String::is_empty) {
                errors.required(Path::root("metadata").child("annotations").key(key), "");
            }
        }
        "kubernetes.io/dockercfg" => validate_json(value(".dockercfg"), data.key(".dockercfg"), errors),
        "kubernetes.io/dockerconfigjson" => {
            validate_json(value(".dockerconfigjson"), data.key(".dockerconfigjson"), errors);
        }
        "kubernetes.io/basic-auth" => {
            let found = value("username").is_some() || value("password").is_some();
            require("username", found);
            require("password", found);
        }
        "kubernetes.io/ssh-auth" => require("ssh-privatekey", value("ssh-privatekey").is_some_and(|v| !v.0.is_empty())),
        "kubernetes.io/tls" => {
            require("tls.crt", value("tls.crt").is_some());
            require("tls.key", value("tls.key").is_some());
        }
        _ => {}
    }
}

fn validate_json(value: Option<&ByteString>, path: Path, errors: &mut Errors) {
    let Some(value) = value else { return errors.required(path, "") };
    if let Err(problem) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&value.0) {
        errors.invalid(path, "<secret contents redacted>", problem.to_string());
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create};
    use serde_json::json;

    #[test]
    fn string_data_becomes_data() {
        let made = run_create("", "v1", "Secret", json!({"stringData": {"a": "hi"}})).unwrap();
        assert_eq!(made["data"], json!({"a": "aGk="}));
        assert_eq!(made["type"], "Opaque");
        assert!(made["stringData"].is_null());
    }

    #[test]
    fn types_demand_their_keys() {
        check_create(
            "",
            "v1",
            "Secret",
            json!({"type": "kubernetes.io/tls"}),
            "[data[tls.crt]: Required value, data[tls.key]: Required value]",
        );
        check_update(
            "",
            "v1",
            "Secret",
            json!({"type": "x"}),
            json!({}),
            "type: Invalid value: \"x\": field is immutable",
        );
    }
}
