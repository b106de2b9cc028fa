//! The containers of a pod: app, init, sidecar and ephemeral.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec, Volume};
use serde_json::json;

use super::claims::{claim_names, validate_container_claims};
use super::{env, mounts, probes, security};
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, port_name, port_number};
use crate::pod::is_sidecar;
use crate::validate::resources::{Owner, validate_requirements};

/// What the rules for one container need to know of its pod.
pub(super) struct PodFacts<'a> {
    pub(super) volumes: &'a BTreeMap<&'a str, &'a Volume>,
    pub(super) grace_seconds: Option<i64>,
    pub(super) restart_policy: &'a str,
    pub(super) host_users: bool,
    pub(super) claims: BTreeSet<&'a str>,
}

pub(super) fn validate_all(spec: &PodSpec, volumes: &BTreeMap<&str, &Volume>, path: &Path, errors: &mut Errors) {
    let pod = PodFacts {
        volumes,
        grace_seconds: spec.termination_grace_period_seconds,
        restart_policy: text(&spec.restart_policy),
        host_users: spec.host_users != Some(false),
        claims: claim_names(spec),
    };
    validate_app_containers(spec, &pod, &path.child("containers"), errors);
    validate_init_containers(spec, &pod, &path.child("initContainers"), errors);
    validate_ephemeral_containers(spec, &pod, &path.child("ephemeralContainers"), errors);
}

fn validate_app_containers(spec: &PodSpec, pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    if spec.containers.is_empty() {
        return errors.required(path.clone(), "");
    }
    let mut names = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.index(index);
        validate_common(container, pod, &path, errors);
        if !names.insert(&container.name) {
            errors.duplicate(path.child("name"), container.name.as_str());
        }
        probes::validate_container_probes(container, pod.grace_seconds, &path, errors);
        validate_restart(container, &path, errors);
    }
    validate_host_port_conflicts(&spec.containers, path, errors);
}

fn validate_init_containers(spec: &PodSpec, pod: &PodFacts<'_>, list: &Path, errors: &mut Errors) {
    let mut names: BTreeSet<&String> = spec.containers.iter().map(|c| &c.name).collect();
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = list.index(index);
        validate_common(container, pod, &path, errors);
        validate_restart(container, &path, errors);
        if !container.name.is_empty() && !names.insert(&container.name) {
            errors.duplicate(path.child("name"), container.name.as_str());
        }
        validate_host_port_conflicts(std::slice::from_ref(container), list, errors);
        if is_sidecar(container) {
            probes::validate_container_probes(container, pod.grace_seconds, &path, errors);
        } else {
            validate_run_once(container, &path, errors);
        }
    }
}

/// What an init container that ends may not have.
fn validate_run_once(container: &Container, path: &Path, errors: &mut Errors) {
    let set = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (name, _) in set.iter().filter(|(_, set)| *set) {
        errors.forbidden(path.child(name), "may not be set for init containers without restartPolicy=Always");
    }
    let policies = container.resize_policy.iter().flatten().enumerate();
    for (at, _) in policies.filter(|(_, policy)| policy.restart_policy == "RestartContainer") {
        let detail = "must not be set to 'RestartContainer' for non-sidecar initContainers";
        let path = path.child("resizePolicy").index(at).child("restartPolicy");
        errors.invalid(path, "RestartContainer", detail);
    }
}

fn validate_ephemeral_containers(spec: &PodSpec, pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    let others: BTreeSet<&String> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &c.name).collect();
    let mut names = others.clone();
    for (index, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        validate_common(&as_container(container), pod, &path, errors);
        validate_image_space(text(&container.image), &path, errors);
        if !names.insert(&container.name) {
            errors.duplicate(path.child("name"), container.name.as_str());
        }
        if let Some(target) = container.target_container_name.as_ref().filter(|name| !name.is_empty())
            && !others.contains(target)
        {
            errors.not_found(path.child("targetContainerName"), target.as_str());
        }
        validate_ephemeral_fields(container, &path, errors);
    }
}

fn validate_ephemeral_fields(container: &EphemeralContainer, path: &Path, errors: &mut Errors) {
    let detail = "cannot be set for an Ephemeral Container";
    let resources = container.resources.clone().unwrap_or_default();
    let set = [
        ("ports", container.ports.is_some()),
        ("resources", resources.limits.is_some() || resources.requests.is_some() || resources.claims.is_some()),
        ("resizePolicy", container.resize_policy.is_some()),
        ("restartPolicy", container.restart_policy.is_some()),
        ("restartPolicyRules", container.restart_policy_rules.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    for (name, _) in set.iter().filter(|(_, set)| *set) {
        errors.forbidden(path.child(name), detail);
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.child("volumeMounts").index(index);
        if !text(&mount.sub_path).is_empty() {
            errors.forbidden(path.child("subPath"), detail);
        }
        if !text(&mount.sub_path_expr).is_empty() {
            errors.forbidden(path.child("subPathExpr"), detail);
        }
    }
}

/// Only in pods: templates of old may have such images.
pub(super) fn validate_image_space(image: &str, path: &Path, errors: &mut Errors) {
    if image.trim() != image {
        errors.invalid(path.child("image"), image, "must not have leading or trailing whitespace");
    }
}

/// An ephemeral container's parts that are validated as those of any other, even where they are then refused.
fn as_container(container: &EphemeralContainer) -> Container {
    Container {
        name: container.name.clone(),
        image: container.image.clone(),
        image_pull_policy: container.image_pull_policy.clone(),
        ports: container.ports.clone(),
        resources: container.resources.clone(),
        resize_policy: container.resize_policy.clone(),
        env: container.env.clone(),
        env_from: container.env_from.clone(),
        volume_mounts: container.volume_mounts.clone(),
        volume_devices: container.volume_devices.clone(),
        termination_message_path: container.termination_message_path.clone(),
        termination_message_policy: container.termination_message_policy.clone(),
        security_context: container.security_context.clone(),
        ..Container::default()
    }
}

fn validate_common(container: &Container, pod: &PodFacts<'_>, path: &Path, errors: &mut Errors) {
    if container.name.is_empty() {
        errors.required(path.child("name"), "");
    } else {
        errors.invalid_each(&path.child("name"), &container.name, dns1123_label(&container.name));
    }
    if text(&container.image).is_empty() {
        errors.required(path.child("image"), "");
    }
    let choose = |name: &str, value: &str, supported: &[&str], errors: &mut Errors| {
        if value.is_empty() {
            errors.required(path.child(name), "");
        } else if !supported.contains(&value) {
            errors.not_supported(path.child(name), value, supported);
        }
    };
    let policies = ["File", "FallbackToLogsOnError"];
    choose("terminationMessagePolicy", text(&container.termination_message_policy), &policies, errors);
    validate_ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), errors);
    env::validate_env(container.env.as_deref().unwrap_or_default(), &path.child("env"), errors);
    env::validate_env_from(container.env_from.as_deref().unwrap_or_default(), &path.child("envFrom"), errors);
    mounts::validate_mounts(container, pod.volumes, path, errors);
    choose("imagePullPolicy", text(&container.image_pull_policy), &["Always", "IfNotPresent", "Never"], errors);
    if let Some(resources) = &container.resources {
        let path = path.child("resources");
        validate_requirements(resources, Owner::Container, &path, errors);
        let claims = resources.claims.as_deref().unwrap_or_default();
        validate_container_claims(claims, &pod.claims, &path.child("claims"), errors);
    }
    validate_resize_policy(container, pod.restart_policy, &path.child("resizePolicy"), errors);
    security::validate_security_context(container.security_context.as_ref(), pod.host_users, path, errors);
}

fn validate_ports(ports: &[ContainerPort], path: &Path, errors: &mut Errors) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = text(&port.name);
        if !name.is_empty() {
            let problems = port_name(name);
            if problems.is_empty() && !names.insert(name) {
                errors.duplicate(path.child("name"), name);
            }
            errors.invalid_each(&path.child("name"), name, problems);
        }
        if port.container_port == 0 {
            errors.required(path.child("containerPort"), "");
        }
        let numbers = [("containerPort", port.container_port), ("hostPort", port.host_port.unwrap_or(0))];
        for (field, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
            for message in port_number(i64::from(number)) {
                errors.invalid(path.child(field), number, message);
            }
        }
        match text(&port.protocol) {
            "TCP" | "UDP" | "SCTP" => {}
            "" => errors.required(path.child("protocol"), ""),
            other => errors.not_supported(path.child("protocol"), other, &["SCTP", "TCP", "UDP"]),
        }
    }
}

fn validate_host_port_conflicts(containers: &[Container], path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, container) in containers.iter().enumerate() {
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let number = port.host_port.unwrap_or(0);
            let key = format!("{}/{}/{number}", text(&port.protocol), text(&port.host_ip));
            if number != 0 && !seen.insert(key.clone()) {
                errors.duplicate(path.index(index).child("ports").index(at).child("hostPort"), key);
            }
        }
    }
}

fn validate_restart(container: &Container, path: &Path, errors: &mut Errors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    match container.restart_policy.as_deref() {
        Some("Always" | "Never" | "OnFailure") => {}
        Some(other) => {
            errors.not_supported(path.child("restartPolicy"), other, &["Always", "Never", "OnFailure"]);
        }
        None if !rules.is_empty() => {
            errors.required(path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
        }
        None => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > 20 {
        errors.too_many(path.clone(), rules.len(), 20);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = path.index(index);
        if !matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            errors.not_supported(path.child("action"), rule.action.as_str(), &["Restart", "RestartAllContainers"]);
        }
        let Some(codes) = &rule.exit_codes else {
            errors.required(path.child("exitCodes"), "must be specified");
            continue;
        };
        if !matches!(codes.operator.as_str(), "In" | "NotIn") {
            errors.not_supported(path.child("exitCodes").child("operator"), codes.operator.as_str(), &["In", "NotIn"]);
        }
        let count = codes.values.as_ref().map_or(0, Vec::len);
        if count > 255 {
            errors.too_many(path.child("exitCodes").child("values"), count, 255);
        }
    }
}

fn validate_resize_policy(container: &Container, restart_policy: &str, path: &Path, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        if !seen.insert(&policy.resource_name) {
            errors.duplicate(path.index(index), policy.resource_name.as_str());
        }
        let choices = [
            (policy.resource_name.as_str(), ["cpu", "memory"]),
            (policy.restart_policy.as_str(), ["NotRequired", "RestartContainer"]),
        ];
        for (value, supported) in choices.into_iter().filter(|(value, supported)| !supported.contains(value)) {
            if value.is_empty() {
                errors.required(path.clone(), "");
            } else {
                errors.not_supported(path.clone(), value, &supported);
            }
        }
        if restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path.clone(), json!(policy.restart_policy), detail);
        }
    }
}
