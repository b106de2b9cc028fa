//! Pod: what only pods get at creation, and what little may change afterwards.

mod change;
mod resize;
mod status;

use k8s_openapi::api::core::v1::{Container, Pod, PodAffinityTerm, PodCondition, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement, Time};
use std::collections::BTreeMap;

use crate::defaults::pod_spec::default_pod_spec;
use crate::defaults::{fill, fill_text, text};
use crate::field::{Errors, Path};
use crate::names::subdomain_name;
use crate::qos::qos_class;
use crate::resources::{container_limits, container_requests, is_huge_page, is_pod_level_resource};
use crate::security_annotations::{app_armor_warnings, take_over_app_armor};
use crate::strategy::{Context, Generation, Shape, Subresource, Write};
use crate::typed::Rules;
use crate::validate::pod::annotations::{
    validate_annotations_update, validate_pod_annotations, validate_profiles_agree,
};
use crate::validate::pod::validate_pod;
use crate::warnings::name_as_hostname;
use crate::warnings::pod::pod_warnings;

pub struct PodRules;

impl Rules for PodRules {
    type Object = Pod;
    const SHAPE: Shape = Shape::new(subdomain_name).generation(Generation::Spec).with_status();

    fn default(object: &mut Pod) {
        let spec = object.spec.get_or_insert_default();
        if spec.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0) {
            spec.termination_grace_period_seconds = Some(1);
        }
        default_pod_spec(spec);
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            requests_from_limits(container);
        }
        fill(&mut spec.enable_service_links, true);
        if spec.host_network == Some(true) {
            default_host_ports(spec);
        }
        if let Some(status) = &mut object.status {
            default_ips(status);
        }
    }

    fn pod_spec(object: &mut Pod) -> Option<&mut PodSpec> {
        object.spec.as_mut()
    }

    fn prepare_create(context: &Context, object: &mut Pod) {
        let labels = object.metadata.labels.clone().unwrap_or_default();
        let status = object.status.get_or_insert_default();
        status.phase = Some("Pending".to_owned());
        let Some(spec) = &mut object.spec else { return };
        if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
            status.conditions = Some(vec![gated_condition(context.now)]);
        }
        merge_label_keys(spec, &labels);
        default_pod_level(spec);
        status.qos_class = Some(qos_class(spec).as_str().to_owned());
        take_over_app_armor(object);
    }

    fn validate_create(object: &Pod, errors: &mut Errors) {
        validate_pod(object, errors);
        let Some(spec) = &object.spec else { return };
        let path = Path::root("spec");
        if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
            errors.forbidden(path.child("ephemeralContainers"), "cannot be set on create");
        }
        let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
        if !text(&spec.node_name).is_empty() && gated {
            errors.forbidden(path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
        }
        validate_profiles_agree(&object.metadata, spec, &path, errors);
    }

    fn prepare_update(write: &Write<'_>, object: &mut Pod, old: &Pod) {
        match write.sub {
            Subresource::Status => status::prepare(object, old),
            Subresource::EphemeralContainers => change::keep_all_but_ephemeral(object, old),
            Subresource::Resize => resize::keep_all_but_resources(object, old),
            _ => {
                let (Some(spec), Some(old)) = (&mut object.spec, &old.spec) else { return };
                if spec.resources.is_none() {
                    spec.resources.clone_from(&old.resources);
                }
            }
        }
    }

    fn validate_update(write: &Write<'_>, object: &Pod, old: &Pod, errors: &mut Errors) {
        match write.sub {
            Subresource::Status => {
                validate_annotations_update(object, old, errors);
                validate_pod_annotations(object, errors);
                status::validate(object, old, errors);
            }
            Subresource::EphemeralContainers => {
                validate_pod(object, errors);
                validate_annotations_update(object, old, errors);
                change::validate_ephemeral(object, old, errors);
            }
            Subresource::Resize => {
                validate_pod(object, errors);
                resize::validate(object, old, errors);
            }
            _ => {
                validate_pod(object, errors);
                validate_annotations_update(object, old, errors);
                change::validate(object, old, errors);
            }
        }
    }

    fn warnings_as_sent(object: &Pod) -> Vec<String> {
        app_armor_warnings(object)
    }

    fn warnings(object: &Pod, old: Option<&Pod>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let name = object.metadata.name.as_deref().and_then(|name| name_as_hostname(name, "the Pod's hostname"));
        let spec = object.spec.iter().flat_map(|spec| pod_warnings(spec, &object.metadata, &Path::default()));
        name.into_iter().chain(spec).collect()
    }

    fn reset_fields(sub: Subresource) -> Vec<Vec<&'static str>> {
        match sub {
            Subresource::Status => {
                vec![vec!["spec"], vec!["metadata", "deletionTimestamp"], vec!["metadata", "ownerReferences"]]
            }
            Subresource::EphemeralContainers | Subresource::Resize => vec![vec!["status"], vec!["metadata"]],
            _ => vec![vec!["status"]],
        }
    }
}

/// Only in pods, not in templates: what is limited and not requested is requested.
fn requests_from_limits(container: &mut Container) {
    let Some(resources) = &mut container.resources else { return };
    let Some(limits) = &resources.limits else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn default_host_ports(spec: &mut PodSpec) {
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for port in containers.flat_map(|container| container.ports.iter_mut().flatten()) {
        if matches!(port.host_port, None | Some(0)) {
            port.host_port = Some(port.container_port);
        }
    }
}

/// The single address and the first of the list are one thing; the single one wins.
fn default_ips(status: &mut PodStatus) {
    let first = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone());
    let single = text(&status.pod_ip).to_owned();
    match first {
        Some(ip) if single.is_empty() => fill_text(&mut status.pod_ip, &ip),
        Some(ip) if ip == single => {}
        _ if single.is_empty() => {}
        _ => status.pod_ips = Some(vec![k8s_openapi::api::core::v1::PodIP { ip: single }]),
    }
}

fn gated_condition(now: jiff::Timestamp) -> PodCondition {
    PodCondition {
        last_transition_time: Some(Time(now)),
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    }
}

/// `matchLabelKeys` become requirements with the pod's own label values.
fn merge_label_keys(spec: &mut PodSpec, labels: &BTreeMap<String, String>) {
    for constraint in spec.topology_spread_constraints.iter_mut().flatten() {
        if let Some(selector) = &mut constraint.label_selector {
            add_requirements(selector, constraint.match_label_keys.as_deref(), "In", labels);
        }
    }
    let Some(affinity) = &mut spec.affinity else { return };
    let mut terms: Vec<&mut PodAffinityTerm> = Vec::new();
    if let Some(pods) = &mut affinity.pod_affinity {
        terms.extend(pods.required_during_scheduling_ignored_during_execution.iter_mut().flatten());
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        terms.extend(preferred.map(|term| &mut term.pod_affinity_term));
    }
    if let Some(pods) = &mut affinity.pod_anti_affinity {
        terms.extend(pods.required_during_scheduling_ignored_during_execution.iter_mut().flatten());
        let preferred = pods.preferred_during_scheduling_ignored_during_execution.iter_mut().flatten();
        terms.extend(preferred.map(|term| &mut term.pod_affinity_term));
    }
    for term in terms {
        if let Some(selector) = &mut term.label_selector {
            add_requirements(selector, term.match_label_keys.as_deref(), "In", labels);
            add_requirements(selector, term.mismatch_label_keys.as_deref(), "NotIn", labels);
        }
    }
}

fn add_requirements(
    selector: &mut LabelSelector,
    keys: Option<&[String]>,
    operator: &str,
    labels: &BTreeMap<String, String>,
) {
    for key in keys.unwrap_or_default() {
        if let Some(value) = labels.get(key) {
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
}

/// Pod-level resources, if any are set, are completed from the containers and from each other.
fn default_pod_level(spec: &mut PodSpec) {
    let requests = container_requests(spec).to_list();
    let limits = container_limits(spec).to_list();
    let Some(resources) = &mut spec.resources else { return };
    let set = |list: &Option<crate::resources::ResourceList>| list.as_ref().is_some_and(|list| !list.is_empty());
    if !set(&resources.requests) && !set(&resources.limits) {
        return;
    }
    for (name, limit) in limits.iter().filter(|(name, _)| is_huge_page(name)) {
        let requested = resources.requests.as_ref().is_some_and(|list| list.contains_key(name));
        if !requested {
            resources.limits.get_or_insert_default().entry(name.clone()).or_insert_with(|| limit.clone());
        }
    }
    if !set(&resources.limits) {
        return;
    }
    let pod_limits = resources.limits.clone().unwrap_or_default();
    let slot = resources.requests.get_or_insert_default();
    for (name, request) in requests.iter().filter(|(name, _)| is_pod_level_resource(name) && !is_huge_page(name)) {
        slot.entry(name.clone()).or_insert_with(|| request.clone());
    }
    for (name, limit) in pod_limits.iter().filter(|(name, _)| is_pod_level_resource(name)) {
        slot.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

#[cfg(test)]
mod tests {
    use crate::check::{check_create, check_update, run_create, run_update};
    use crate::strategy::Subresource;
    use serde_json::{Value, json};

    const POD: (&str, &str, &str) = ("", "v1", "Pod");

    fn pod(change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({"spec": {"containers": [{"name": "c", "image": "nginx"}]}});
        change(&mut pod);
        pod
    }

    #[test]
    fn defaults_of_a_minimal_pod() {
        let made = run_create("", "v1", "Pod", pod(|_| {})).unwrap();
        expect_test::expect![[r#"{"apiVersion":"v1","kind":"Pod","metadata":{"creationTimestamp":"2026-01-02T03:04:05Z","generation":1,"name":"x","namespace":"ns","uid":"uid-1"},"spec":{"containers":[{"image":"nginx","imagePullPolicy":"Always","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30},"status":{"phase":"Pending","qosClass":"BestEffort"}}"#]]
        .assert_eq(&made.to_string());
    }

    #[test]
    fn requests_follow_limits_and_ports_the_host() {
        let made = run_create(
            "",
            "v1",
            "Pod",
            pod(|p| {
                p["spec"]["hostNetwork"] = json!(true);
                p["spec"]["containers"][0]["ports"] = json!([{"containerPort": 80}]);
                p["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "1000m", "memory": "1Gi"}});
            }),
        )
        .unwrap();
        let container = &made["spec"]["containers"][0];
        assert_eq!(container["ports"][0], json!({"containerPort": 80, "hostPort": 80, "protocol": "TCP"}));
        assert_eq!(container["resources"]["requests"], json!({"cpu": "1", "memory": "1Gi"}));
        assert_eq!(made["status"]["qosClass"], "Guaranteed");
    }

    #[test]
    fn an_image_may_change_and_a_name_may_not() {
        let image = pod(|p| p["spec"]["containers"][0]["image"] = json!("nginx:2"));
        let made = run_update(POD, Subresource::Main, image, pod(|_| {}));
        // The pull policy follows the image only at creation, so it stays what it was.
        assert!(made.is_err());
        let old = || pod(|p| p["spec"]["containers"][0]["imagePullPolicy"] = json!("Always"));
        let image = pod(|p| {
            p["spec"]["containers"][0]["image"] = json!("nginx:2");
            p["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
        });
        assert_eq!(run_update(POD, Subresource::Main, image, old()).unwrap()["metadata"]["generation"], 1);
        check_update(
            "",
            "v1",
            "Pod",
            pod(|p| p["spec"]["hostname"] = json!("h")),
            pod(|_| {}),
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n  core.PodSpec{\n- \thostname: null,\n+ \thostname: \"h\",\n  }",
        );
    }

    #[test]
    fn a_deadline_may_only_shrink() {
        let deadline = |seconds: i64| pod(move |p| p["spec"]["activeDeadlineSeconds"] = json!(seconds));
        check_update("", "v1", "Pod", deadline(5), deadline(10), "");
        check_update("", "v1", "Pod", deadline(10), pod(|_| {}), "");
        check_update(
            "",
            "v1",
            "Pod",
            deadline(10),
            deadline(5),
            "spec.activeDeadlineSeconds: Invalid value: 10: must be less than or equal to previous value",
        );
    }

    #[test]
    fn a_status_write_keeps_the_spec() {
        let mut new = pod(|p| p["spec"]["hostname"] = json!("h"));
        new["status"] = json!({"phase": "Running", "podIP": "10.0.0.1"});
        let made = run_update(POD, Subresource::Status, new, pod(|_| {})).unwrap();
        assert!(made["spec"]["hostname"].is_null());
        assert_eq!(made["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    }

    #[test]
    fn ephemeral_containers_are_only_added() {
        let with = |name: &str| {
            let name = name.to_owned();
            pod(move |p| p["spec"]["ephemeralContainers"] = json!([{"name": name, "image": "i"}]))
        };
        run_update(POD, Subresource::EphemeralContainers, with("e"), pod(|_| {})).unwrap();
        let gone = run_update(POD, Subresource::EphemeralContainers, pod(|_| {}), with("e")).unwrap_err();
        assert!(gone.contains("existing ephemeral containers \"e\" may not be removed"), "{gone}");
        check_create("", "v1", "Pod", with("e"), "spec.ephemeralContainers: Forbidden: cannot be set on create");
    }
}
