//! Pods and templates: deprecated parts, and what is written twice or matches nothing.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, ContainerPort, EnvVar, PodAffinityTerm, PodSpec, PodTemplateSpec, SecurityContext,
    Volume, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::address::ip_warning;
use super::claim::claim_spec_warnings;
use super::fractional_bytes;
use super::node_labels::{deprecation, term_warnings};
use super::paths::overlap_warnings;
use super::ports::port_warnings;
use crate::defaults::text;
use crate::field::{Path, quote};
use crate::security_annotations::{
    APP_ARMOR_PREFIX, SECCOMP_CONTAINER_PREFIX, SECCOMP_POD, annotation, app_armor_field, app_armor_warning,
};

const BYTE_RESOURCES: [&str; 2] = ["memory", "ephemeral-storage"];
const NO_POD: &str = "a null labelSelector results in matching no pod";
const DEPRECATED_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    ("security.alpha.kubernetes.io/unsafe-sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
];

/// The warnings about a workload's template at `path`.
pub fn template_warnings(template: &PodTemplateSpec, path: &Path) -> Vec<String> {
    let metadata = template.metadata.clone().unwrap_or_default();
    template.spec.as_ref().map(|spec| pod_warnings(spec, &metadata, path)).unwrap_or_default()
}

/// The warnings about a pod; `path` leads to what holds `metadata` and `spec`.
pub fn pod_warnings(spec: &PodSpec, metadata: &ObjectMeta, path: &Path) -> Vec<String> {
    let at = path.child("spec");
    let containers = containers_of(spec, &at);
    let ports: Vec<(Path, &ContainerPort)> = containers
        .iter()
        .flat_map(|container| {
            let ports = container.ports.iter().enumerate();
            ports.map(|(index, port)| (container.path.child("ports").index(index), port))
        })
        .collect();
    let mut found = placement_warnings(spec, &at);
    found.extend(annotation_warnings(spec, metadata, path));
    found.extend(
        spec.volumes.iter().flatten().enumerate().flat_map(|(i, v)| volume_warnings(v, &at.child("volumes").index(i))),
    );
    found.extend(spec.volumes.iter().flatten().flat_map(overlap_warnings));
    found.extend(name_warnings(spec, &at));
    let pod_profile = spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref());
    for container in &containers {
        found.extend(container_warnings(container, metadata, pod_profile, path));
    }
    found.extend(port_warnings(&ports));
    found.extend(affinity_warnings(spec, &at));
    found
}

/// The parts of a container of any of the three lists that can be warned about.
struct Part<'a> {
    path: Path,
    name: &'a str,
    ports: &'a [ContainerPort],
    env: &'a [EnvVar],
    container: Option<&'a Container>,
    context: Option<&'a SecurityContext>,
}

fn containers_of<'a>(spec: &'a PodSpec, path: &Path) -> Vec<Part<'a>> {
    let part = |list: &str, index: usize, container: &'a Container| Part {
        path: path.child(list).index(index),
        name: &container.name,
        ports: container.ports.as_deref().unwrap_or_default(),
        env: container.env.as_deref().unwrap_or_default(),
        container: Some(container),
        context: container.security_context.as_ref(),
    };
    let init = spec.init_containers.iter().flatten().enumerate().map(|(i, c)| part("initContainers", i, c));
    let app = spec.containers.iter().enumerate().map(|(i, c)| part("containers", i, c));
    let ephemeral = spec.ephemeral_containers.iter().flatten().enumerate().map(|(i, c)| Part {
        path: path.child("ephemeralContainers").index(i),
        name: &c.name,
        ports: c.ports.as_deref().unwrap_or_default(),
        env: c.env.as_deref().unwrap_or_default(),
        container: None,
        context: c.security_context.as_ref(),
    });
    init.chain(app).chain(ephemeral).collect()
}

fn placement_warnings(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for label in spec.node_selector.iter().flat_map(|labels| labels.keys()) {
        if let Some(message) = deprecation(label) {
            found.push(format!("{}: {message}", path.child("nodeSelector").key(label)));
        }
    }
    if let Some(nodes) = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref()) {
        let path = path.child("affinity").child("nodeAffinity");
        let required = nodes.required_during_scheduling_ignored_during_execution.iter();
        let terms = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
        for (index, term) in required.flat_map(|required| &required.node_selector_terms).enumerate() {
            found.extend(term_warnings(term, false, &terms.index(index)));
        }
        let terms = path.child("preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten();
        for (index, term) in preferred.enumerate() {
            found.extend(term_warnings(&term.preference, true, &terms.index(index).child("preference")));
        }
    }
    for (index, constraint) in spec.topology_spread_constraints.iter().flatten().enumerate() {
        let path = path.child("topologySpreadConstraints").index(index);
        if let Some(message) = deprecation(&constraint.topology_key) {
            found.push(format!("{}: {} is {message}", path.child("topologyKey"), constraint.topology_key));
        }
        if constraint.label_selector.is_none() {
            found.push(format!("{}: {NO_POD}", path.child("labelSelector")));
        }
    }
    found
}

fn annotation_warnings(spec: &PodSpec, metadata: &ObjectMeta, path: &Path) -> Vec<String> {
    let annotations = path.child("metadata").child("annotations");
    let has = |key: &str| metadata.annotations.as_ref().is_some_and(|map| map.contains_key(key));
    let mut found: Vec<String> = DEPRECATED_ANNOTATIONS
        .iter()
        .filter(|(key, _)| has(key))
        .map(|(key, message)| format!("{}: {message}", annotations.key(key)))
        .collect();
    if spec.security_context.as_ref().is_none_or(|c| c.seccomp_profile.is_none()) && has(SECCOMP_POD) {
        found.push(seccomp_warning(&annotations.key(SECCOMP_POD)));
    }
    found
}

fn seccomp_warning(path: &Path) -> String {
    format!(r#"{path}: non-functional in v1.27+; use the "seccompProfile" field instead"#)
}

fn volume_warnings(volume: &Volume, path: &Path) -> Vec<String> {
    let gone = |given: bool, name: &str, message: &str| given.then(|| format!("{}: {message}", path.child(name)));
    let mut found: Vec<String> = [
        gone(
            volume.photon_persistent_disk.is_some(),
            "photonPersistentDisk",
            "deprecated in v1.11, non-functional in v1.16+",
        ),
        gone(volume.git_repo.is_some(), "gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
        gone(volume.scale_io.is_some(), "scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
        gone(volume.flocker.is_some(), "flocker", "deprecated in v1.22, non-functional in v1.25+"),
        gone(volume.storageos.is_some(), "storageOS", "deprecated in v1.22, non-functional in v1.25+"),
        gone(volume.quobyte.is_some(), "quobyte", "deprecated in v1.22, non-functional in v1.25+"),
        gone(volume.glusterfs.is_some(), "glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
        gone(volume.cephfs.is_some(), "cephfs", "deprecated in v1.28, non-functional in v1.31+"),
        gone(volume.rbd.is_some(), "rbd", "deprecated in v1.28, non-functional in v1.31+"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if let Some(template) = volume.ephemeral.as_ref().and_then(|source| source.volume_claim_template.as_ref()) {
        let path = path.child("ephemeral").child("volumeClaimTemplate").child("spec");
        found.extend(claim_spec_warnings(&template.spec, &path));
    }
    found
}

/// Host aliases, pull secrets, name servers, overhead: the lists and sums of the spec itself.
fn name_warnings(spec: &PodSpec, path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.child("hostAliases").index(index).child("ip");
        if !seen.insert(&alias.ip) {
            found.push(format!("{path}: duplicate ip {}", quote(&alias.ip)));
        }
        found.extend(ip_warning(&alias.ip, &path));
    }
    let mut seen = BTreeSet::new();
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        let path = path.child("imagePullSecrets").index(index).child("name");
        if !seen.insert(&secret.name) {
            found.push(format!("{path}: duplicate name {}", quote(&secret.name)));
        }
        if secret.name.is_empty() {
            found.push(format!("{path}: invalid empty name \"\""));
        }
    }
    let servers = spec.dns_config.iter().flat_map(|config| config.nameservers.iter().flatten());
    for (index, server) in servers.enumerate() {
        found.extend(ip_warning(server, &path.child("dnsConfig").child("nameservers").index(index)));
    }
    for name in BYTE_RESOURCES {
        let overhead = spec.overhead.as_ref().and_then(|list| list.get(name));
        found.extend(fractional_bytes(overhead, &path.child("overhead").key(name)));
    }
    found
}

/// Of annotations of AppArmor only templates are warned about here: see [`crate::security_annotations::app_armor_warnings`].
fn container_warnings(
    part: &Part<'_>,
    metadata: &ObjectMeta,
    pod_profile: Option<&AppArmorProfile>,
    path: &Path,
) -> Vec<String> {
    let mut found = Vec::new();
    let is_template = !path.as_str().is_empty();
    let annotations = path.child("metadata").child("annotations");
    let seccomp = format!("{SECCOMP_CONTAINER_PREFIX}{}", part.name);
    let has_seccomp = part.context.is_some_and(|context| context.seccomp_profile.is_some());
    if !has_seccomp && annotation(metadata, &seccomp).is_some() {
        found.push(seccomp_warning(&annotations.key(&seccomp)));
    }
    let app_armor = format!("{APP_ARMOR_PREFIX}{}", part.name);
    let has_app_armor = part.context.is_some_and(|context| context.app_armor_profile.is_some());
    if let Some(value) = annotation(metadata, &app_armor).filter(|_| is_template && !has_app_armor)
        && (pod_profile.is_none() || pod_profile != app_armor_field(value).as_ref())
    {
        found.push(app_armor_warning(&annotations.key(&app_armor)));
    }
    if let Some(resources) = part.container.and_then(|container| container.resources.as_ref()) {
        for name in BYTE_RESOURCES {
            for (list_name, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
                let path = part.path.child("resources").child(list_name).key(name);
                found.extend(fractional_bytes(list.as_ref().and_then(|list| list.get(name)), &path));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, variable) in part.env.iter().enumerate() {
        let builds_on = text(&variable.value).contains(&format!("$({})", variable.name));
        let itself = text(&variable.value) == format!("$({})", variable.name);
        let hides = variable.value_from.is_some() || itself || !builds_on;
        if !seen.insert(&variable.name) && hides {
            found.push(format!(
                "{}: hides previous definition of {}, which may be dropped when using apply",
                part.path.child("env").index(index),
                quote(&variable.name)
            ));
        }
    }
    found
}

fn affinity_warnings(spec: &PodSpec, path: &Path) -> Vec<String> {
    let Some(affinity) = &spec.affinity else { return Vec::new() };
    let path = path.child("affinity");
    let mut found = Vec::new();
    if let Some(pods) = &affinity.pod_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        found.extend(pod_term_warnings(required, preferred, &path.child("podAffinity")));
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let required = pods.required_during_scheduling_ignored_during_execution.as_deref();
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.as_deref();
        found.extend(pod_term_warnings(required, preferred, &path.child("podAntiAffinity")));
    }
    found
}

fn pod_term_warnings(
    required: Option<&[PodAffinityTerm]>,
    preferred: Option<&[WeightedPodAffinityTerm]>,
    path: &Path,
) -> Vec<String> {
    let required_path = path.child("requiredDuringSchedulingIgnoredDuringExecution");
    let preferred_path = path.child("preferredDuringSchedulingIgnoredDuringExecution");
    let required = required.into_iter().flatten().enumerate().map(|(i, term)| (required_path.index(i), term));
    let preferred = preferred.into_iter().flatten().enumerate();
    let preferred =
        preferred.map(|(i, term)| (preferred_path.index(i).child("podAffinityTerm"), &term.pod_affinity_term));
    required
        .chain(preferred)
        .filter(|(_, term)| term.label_selector.is_none())
        .map(|(path, _)| format!("{}: {NO_POD}", path.child("labelSelector")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// `spec` is merged over one container.
    #[track_caller]
    fn check(spec: Value, expect: &[&str]) {
        let mut pod = json!({"containers": [{"name": "c"}]});
        for (key, value) in spec.as_object().unwrap() {
            pod[key] = value.clone();
        }
        let spec: PodSpec = serde_json::from_value(pod).unwrap();
        assert_eq!(pod_warnings(&spec, &ObjectMeta::default(), &Path::default()), expect);
    }

    #[track_caller]
    fn check_container(fields: Value, expect: &[&str]) {
        let mut container = json!({"name": "c"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        check(json!({"containers": [container]}), expect);
    }

    #[test]
    fn variables_that_hide_others() {
        let hides =
            r#"spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply"#;
        check_container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}), &[hides]);
        check_container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)"}]}), &[hides]);
        check_container(json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]}), &[]);
    }

    #[test]
    fn ports_that_are_said_twice() {
        let ports = |ports: Value, expect: &[&str]| check_container(json!({ "ports": ports }), expect);
        ports(
            json!([{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP"}]),
            &["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"],
        );
        ports(
            json!([{"containerPort": 80, "protocol": "TCP", "hostPort": 1}, {"containerPort": 80, "protocol": "TCP"}]),
            &["spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]"],
        );
        ports(
            json!([{"containerPort": 53, "protocol": "UDP", "hostIP": "10.0.0.1"}]),
            &[
                "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:53 Protocol:UDP HostIP:10.0.0.1}",
            ],
        );
        ports(
            json!([{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]),
            &[
                r#"spec.containers[0].ports[1]: duplicate port name "a" with spec.containers[0].ports[0], services and probes that select ports by name will use spec.containers[0].ports[0]"#,
            ],
        );
    }

    #[test]
    fn deprecated_and_empty_parts() {
        check(
            json!({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}),
            &[r#"spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#],
        );
        check(
            json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
            &["spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"],
        );
        check(
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "a"}]}),
            &[r#"spec.imagePullSecrets[1].name: duplicate name "a""#],
        );
        check(
            json!({"volumes": [{"name": "v", "glusterfs": {"endpoints": "e", "path": "p"}}]}),
            &["spec.volumes[0].glusterfs: deprecated in v1.25, non-functional in v1.26+"],
        );
        check_container(
            json!({"resources": {"requests": {"memory": "100m"}}}),
            &[
                r#"spec.containers[0].resources.requests[memory]: fractional byte value "100m" is invalid, must be an integer"#,
            ],
        );
    }

    #[test]
    fn files_over_files() {
        let items = json!([{"key": "a", "path": "x"}, {"key": "b", "path": "x/y"}]);
        check(
            json!({"volumes": [{"name": "v", "configMap": {"name": "m", "items": items}}]}),
            &[r#"volume "v" (ConfigMap "m"): overlapping paths: "x/y" with "x""#],
        );
    }
}
