//! RBAC: roles and bindings of both scopes. What a rule grants and whether its author may grant it is the API server's.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use serde_json::{Value, json};

use super::super::PLAIN;
use crate::defaults::{fill_text, text};
use crate::field::{Errors, Path};
use crate::names::{path_segment_name, subdomain_name};
use crate::strategy::{Shape, Strategy, Write};
use crate::typed::{Rules, Typed};
use crate::validate::labels::validate_label_selector;
use crate::validate::numbers::validate_immutable;

const GROUP: &str = "rbac.authorization.k8s.io";
const SHAPE: Shape = Shape::new(path_segment_name);

pub fn strategy(kind: &str) -> &'static dyn Strategy {
    match kind {
        "Role" => const { &Typed::<RoleRules>::new() },
        "ClusterRole" => const { &Typed::<ClusterRoleRules>::new() },
        "RoleBinding" => const { &Typed::<RoleBindingRules>::new() },
        "ClusterRoleBinding" => const { &Typed::<ClusterRoleBindingRules>::new() },
        _ => &PLAIN,
    }
}

pub struct RoleRules;

impl Rules for RoleRules {
    type Object = Role;
    const SHAPE: Shape = SHAPE;

    fn validate(object: &Role, errors: &mut Errors) {
        validate_rules(&object.rules, true, errors);
    }
}

pub struct ClusterRoleRules;

impl Rules for ClusterRoleRules {
    type Object = ClusterRole;
    const SHAPE: Shape = SHAPE;

    fn validate(object: &ClusterRole, errors: &mut Errors) {
        validate_cluster_role(object, errors);
    }
}

pub struct RoleBindingRules;

impl Rules for RoleBindingRules {
    type Object = RoleBinding;
    const SHAPE: Shape = SHAPE;

    fn default(object: &mut RoleBinding) {
        default_binding(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(object: &RoleBinding, errors: &mut Errors) {
        validate_ref(&object.role_ref, &["Role", "ClusterRole"], errors);
        validate_subjects(&object.subjects, true, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &RoleBinding, old: &RoleBinding, errors: &mut Errors) {
        validate_immutable(&role_json(&object.role_ref), &role_json(&old.role_ref), Path::root("roleRef"), errors);
    }
}

pub struct ClusterRoleBindingRules;

impl Rules for ClusterRoleBindingRules {
    type Object = ClusterRoleBinding;
    const SHAPE: Shape = SHAPE;

    fn default(object: &mut ClusterRoleBinding) {
        default_binding(&mut object.role_ref, &mut object.subjects);
    }

    fn validate(object: &ClusterRoleBinding, errors: &mut Errors) {
        validate_ref(&object.role_ref, &["ClusterRole"], errors);
        validate_subjects(&object.subjects, false, errors);
    }

    fn validate_update(_write: &Write<'_>, object: &ClusterRoleBinding, old: &ClusterRoleBinding, errors: &mut Errors) {
        validate_immutable(&role_json(&object.role_ref), &role_json(&old.role_ref), Path::root("roleRef"), errors);
    }
}

fn default_binding(role: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    fill_text(&mut role.api_group, GROUP);
    for subject in subjects.iter_mut().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group") {
            fill_text(&mut subject.api_group, GROUP);
        }
    }
}

/// The reference as messages show it: by the names of upstream's struct.
fn role_json(role: &RoleRef) -> Value {
    json!({"APIGroup": role.api_group, "Kind": role.kind, "Name": role.name})
}

fn validate_rules(rules: &Option<Vec<PolicyRule>>, namespaced: bool, errors: &mut Errors) {
    let path = |index: usize| Path::root("rules").index(index);
    for (index, rule) in rules.iter().flatten().enumerate() {
        validate_rule(rule, namespaced, &path(index), errors);
    }
    // Upstream asks this of all rules after the rest.
    for (index, _) in rules.iter().flatten().enumerate().filter(|(_, rule)| rule.verbs.is_empty()) {
        errors.required(path(index).child("verbs"), "");
    }
}

fn validate_rule(rule: &PolicyRule, namespaced: bool, path: &Path, errors: &mut Errors) {
    let filled = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if filled(&rule.non_resource_urls) {
        let path = path.child("nonResourceURLs");
        if namespaced {
            let detail = "namespaced rules cannot apply to non-resource URLs";
            errors.invalid(path.clone(), json!(rule.non_resource_urls), detail);
        }
        if filled(&rule.api_groups) || filled(&rule.resources) || filled(&rule.resource_names) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.invalid(path, json!(rule.non_resource_urls), detail);
        }
        return;
    }
    if !filled(&rule.api_groups) {
        errors.required(path.child("apiGroups"), "resource rules must supply at least one api group");
    }
    if !filled(&rule.resources) {
        errors.required(path.child("resources"), "resource rules must supply at least one resource");
    }
}

fn validate_cluster_role(object: &ClusterRole, errors: &mut Errors) {
    validate_rules(&object.rules, false, errors);
    let Some(aggregation) = &object.aggregation_rule else { return };
    let path = Path::root("aggregationRule").child("clusterRoleSelectors");
    let selectors = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
    if selectors.is_empty() {
        errors.required(path.clone(), "at least one clusterRoleSelector required if aggregationRule is non-nil");
    }
    for (index, selector) in selectors.iter().enumerate() {
        let before = errors.len();
        validate_label_selector(Some(selector), &path.index(index), errors);
        if errors.len() > before {
            errors.invalid(path.index(index), Value::Null, "invalid label selector.");
        }
    }
}

fn validate_ref(role: &RoleRef, kinds: &[&str], errors: &mut Errors) {
    let path = Path::root("roleRef");
    if text(&role.api_group) != GROUP {
        errors.not_supported(path.child("apiGroup"), text(&role.api_group), &[GROUP]);
    }
    if !kinds.contains(&role.kind.as_str()) {
        errors.not_supported(path.child("kind"), role.kind.as_str(), kinds);
    }
    if role.name.is_empty() {
        errors.required(path.child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), &role.name, path_segment_name(&role.name, false));
    }
}

fn validate_subjects(subjects: &Option<Vec<Subject>>, namespaced: bool, errors: &mut Errors) {
    let path = |index: usize| Path::root("subjects").index(index);
    for (index, subject) in subjects.iter().flatten().enumerate() {
        validate_subject(subject, namespaced, &path(index), errors);
    }
    for (index, _) in subjects.iter().flatten().enumerate().filter(|(_, subject)| subject.name.is_empty()) {
        errors.required(path(index).child("name"), "");
    }
}

fn validate_subject(subject: &Subject, namespaced: bool, path: &Path, errors: &mut Errors) {
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.invalid_each(&path.child("name"), &subject.name, subdomain_name(&subject.name, false));
            }
            if !group.is_empty() {
                errors.not_supported(path.child("apiGroup"), group, &[""]);
            }
            if !namespaced && subject.namespace.as_deref().is_none_or(str::is_empty) {
                errors.required(path.child("namespace"), "");
            }
        }
        "User" | "Group" if group == GROUP => {}
        "User" | "Group" => errors.not_supported(path.child("apiGroup"), group, &[GROUP]),
        other => errors.not_supported(path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create};
    use serde_json::json;

    #[test]
    fn bindings() {
        let binding = json!({"roleRef": {"kind": "Role", "name": "a:b"}, "subjects": [{"kind": "User", "name": "u"}]});
        let made = run_create(super::GROUP, "v1", "RoleBinding", binding.clone()).unwrap();
        assert_eq!(made["subjects"][0]["apiGroup"], super::GROUP);
        check_update(
            super::GROUP,
            "v1",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "c"}}),
            binding,
            "roleRef: Invalid value: {\"APIGroup\":\"rbac.authorization.k8s.io\",\"Kind\":\"Role\",\"Name\":\"c\"}: field is immutable",
        );
    }

    #[test]
    fn what_is_missing_is_asked_for_after_the_rest() {
        check_create(
            super::GROUP,
            "v1",
            "RoleBinding",
            json!({"roleRef": {"kind": "Role", "name": "a"}, "subjects": [{"kind": "", "name": ""}]}),
            "[subjects[0].kind: Unsupported value: \"\": supported values: \"ServiceAccount\", \"User\", \"Group\", subjects[0].name: Required value]",
        );
        check_create(
            super::GROUP,
            "v1",
            "Role",
            json!({"rules": [{"verbs": [], "apiGroups": [""]}]}),
            "[rules[0].resources: Required value: resource rules must supply at least one resource, rules[0].verbs: Required value]",
        );
    }

    #[test]
    fn rules_name_what_they_allow() {
        check_create(
            super::GROUP,
            "v1",
            "Role",
            json!({"metadata": {"name": "system:a"}, "rules": [{"verbs": ["get"], "resources": ["pods"]}]}),
            "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
        );
        check_create(
            super::GROUP,
            "v1",
            "Role",
            json!({"metadata": {"name": "a/b"}}),
            "metadata.name: Invalid value: \"a/b\": may not contain '/'",
        );
    }
}
