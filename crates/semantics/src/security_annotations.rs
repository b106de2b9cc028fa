//! The annotations that named security profiles before pods had fields for them.
//!
//! Those of seccomp do nothing any more; those of AppArmor are taken over into the fields of a new pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{AppArmorProfile, Pod, PodSpec, SecurityContext};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::validate::pod::validate_app_armor;

pub(crate) const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
/// Followed by the container's name, as the next.
pub(crate) const SECCOMP_CONTAINER_PREFIX: &str = "container.seccomp.security.alpha.kubernetes.io/";
pub(crate) const APP_ARMOR_PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Values of both: the runtime's own profile, none, and one of the node's files.
pub(crate) const RUNTIME_DEFAULT: &str = "runtime/default";
pub(crate) const UNCONFINED: &str = "unconfined";
pub(crate) const LOCALHOST_PREFIX: &str = "localhost/";

/// The profile of AppArmor that an annotation's value stands for; `None` if for none.
pub(crate) fn app_armor_field(value: &str) -> Option<AppArmorProfile> {
    let named = |type_: &str| AppArmorProfile { type_: type_.to_owned(), localhost_profile: None };
    match value {
        UNCONFINED => Some(named("Unconfined")),
        RUNTIME_DEFAULT => Some(named("RuntimeDefault")),
        _ => {
            let file = value.strip_prefix(LOCALHOST_PREFIX).filter(|file| !file.is_empty())?;
            Some(AppArmorProfile { localhost_profile: Some(file.to_owned()), ..named("Localhost") })
        }
    }
}

/// Gives containers without a profile the one that their annotation names, unless that is the pod's anyway.
pub(crate) fn take_over_app_armor(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    let of_pod = of_pod(spec).cloned();
    each_without_profile(spec, &pod.metadata, |_, value, context| {
        let profile = valid_field(value).filter(|profile| Some(profile) != of_pod.as_ref());
        if profile.is_some() {
            context.get_or_insert_default().app_armor_profile = profile;
        }
    });
}

/// Warnings about annotations that are [taken over](take_over_app_armor) or cannot be. Ahead of that: afterwards they look heeded.
pub(crate) fn app_armor_warnings(pod: &Pod) -> Vec<String> {
    let Some(mut spec) = pod.spec.clone() else { return Vec::new() };
    let of_pod = of_pod(&spec).cloned();
    let path = Path::root("metadata").child("annotations");
    let mut found = Vec::new();
    each_without_profile(&mut spec, &pod.metadata, |key, value, _| {
        if valid_field(value).is_none_or(|profile| Some(profile) != of_pod) {
            found.push(app_armor_warning(&path.key(key)));
        }
    });
    found
}

pub(crate) fn app_armor_warning(path: &Path) -> String {
    format!(r#"{path}: deprecated since v1.30; use the "appArmorProfile" field instead"#)
}

fn of_pod(spec: &PodSpec) -> Option<&AppArmorProfile> {
    spec.security_context.as_ref()?.app_armor_profile.as_ref()
}

fn valid_field(value: &str) -> Option<AppArmorProfile> {
    app_armor_field(value).filter(|profile| {
        let mut errors = Errors::new();
        validate_app_armor(Some(profile), &Path::default(), &mut errors);
        errors.is_empty()
    })
}

/// Containers with an annotation of AppArmor and without a profile: key and value of the annotation, and the container's context.
fn each_without_profile(
    spec: &mut PodSpec,
    metadata: &ObjectMeta,
    mut visit: impl FnMut(&str, &str, &mut Option<SecurityContext>),
) {
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        return;
    }
    let none = BTreeMap::new();
    let annotations = metadata.annotations.as_ref().unwrap_or(&none);
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    let contexts = containers.map(|container| (&container.name, &mut container.security_context));
    let ephemeral = spec.ephemeral_containers.iter_mut().flatten();
    for (name, context) in contexts.chain(ephemeral.map(|c| (&c.name, &mut c.security_context))) {
        let key = format!("{APP_ARMOR_PREFIX}{name}");
        let set = context.as_ref().is_some_and(|context| context.app_armor_profile.is_some());
        if let Some(value) = annotations.get(&key).filter(|_| !set) {
            visit(&key, value, context);
        }
    }
}

/// The value for `key`, if the annotation is there.
pub(crate) fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether `value` says the same as a profile's field of `type_` and `file`; else the field that differs and what is wrong.
/// `runtime_defaults` are the values that mean the runtime's own profile.
pub(crate) fn mismatch(
    value: &str,
    type_: &str,
    file: &Option<String>,
    runtime_defaults: &[&str],
) -> Option<&'static str> {
    let agrees = match type_ {
        "Unconfined" => value == UNCONFINED,
        "RuntimeDefault" => runtime_defaults.contains(&value),
        "Localhost" => match value.strip_prefix(LOCALHOST_PREFIX) {
            Some(named) if file.is_none() || named != text(file) => return Some("localhostProfile"),
            named => named.is_some(),
        },
        _ => true,
    };
    (!agrees).then_some("type")
}
