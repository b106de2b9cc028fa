//! Pods and pod specs in full.
//!
//! `validate_pod_spec` is what pods and templates share, `validate_pod` adds what only a pod must satisfy. Rules on what
//! may change are with the Pod's own rules.

pub(crate) mod annotations;
mod claims;
mod container;
mod env;
mod files;
mod mounts;
mod names;
mod os;
mod probes;
mod projected;
mod resources;
mod scheduling;
mod security;
mod visit;
mod volumes;

use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

pub(crate) use self::scheduling::validate_node_selector;
pub(crate) use self::security::validate_app_armor;
use super::labels::validate_labels;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::in_range;

/// A pod as it is, at creation and after every change.
pub fn validate_pod(pod: &Pod, errors: &mut Errors) {
    let Some(spec) = &pod.spec else { return };
    let path = Path::root("spec");
    annotations::validate_pod_annotations(pod, errors);
    validate_pod_spec(spec, &pod.metadata, &path, errors);
    if text(&spec.service_account_name).is_empty() {
        validate_no_tokens(spec, &path, errors);
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|seconds| *seconds < 0) {
        errors.invalid(path.child("terminationGracePeriodSeconds"), seconds, super::numbers::NEGATIVE);
    }
    for (name, containers) in
        [("containers", Some(&spec.containers)), ("initContainers", spec.init_containers.as_ref())]
    {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            container::validate_image_space(text(&container.image), &path.child(name).index(index), errors);
        }
    }
}

/// The spec of a pod or a template. `metadata` is the pod's or the template's.
pub fn validate_pod_spec(spec: &PodSpec, metadata: &ObjectMeta, path: &Path, errors: &mut Errors) {
    if spec.termination_grace_period_seconds.is_none() {
        errors.required(path.child("terminationGracePeriodSeconds"), "");
    }
    let volumes = volumes::validate_volumes(spec, metadata, &path.child("volumes"), errors);
    claims::validate_pod_claims(spec, metadata, &path.child("resourceClaims"), errors);
    container::validate_all(spec, &volumes, path, errors);
    resources::validate_pod_resources(spec, &path.child("resources"), errors);
    validate_host_ports(spec, path, errors);
    validate_choices(spec, path, errors);
    validate_labels(&spec.node_selector, &path.child("nodeSelector"), errors);
    security::validate_pod_security(spec, path, errors);
    scheduling::validate_affinity(spec.affinity.as_ref(), &path.child("affinity"), errors);
    names::validate_dns(spec, path, errors);
    scheduling::validate_gates(spec, path, errors);
    scheduling::validate_spread(spec, &path.child("topologySpreadConstraints"), errors);
    os::validate_host_processes(spec, path, errors);
    security::validate_host_users(spec, path, errors);
    names::validate_hostname_override(spec, path, errors);
    names::validate_names(spec, path, errors);
    if let Some(seconds) = spec.active_deadline_seconds {
        for message in in_range(seconds, 1, i64::from(i32::MAX)) {
            errors.invalid(path.child("activeDeadlineSeconds"), seconds, message);
        }
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    scheduling::validate_tolerations(tolerations, &path.child("tolerations"), errors);
    resources::validate_overhead(spec, &path.child("overhead"), errors);
    os::validate_os(spec, path, errors);
    env::validate_file_volumes(spec, path, errors);
}

fn validate_choices(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let mut choose = |name: &str, value: &str, supported: &[&str]| {
        if value.is_empty() {
            errors.required(path.child(name), "");
        } else if !supported.contains(&value) {
            errors.not_supported(path.child(name), value, supported);
        }
    };
    choose("restartPolicy", text(&spec.restart_policy), &["Always", "OnFailure", "Never"]);
    let dns = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    choose("dnsPolicy", text(&spec.dns_policy), &dns);
    if let Some(policy) = &spec.preemption_policy {
        choose("preemptionPolicy", policy, &["PreemptLowerPriority", "Never"]);
    }
}

/// Without a service account there is nothing to make a token for.
fn validate_no_tokens(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let sources = volume.projected.iter().flat_map(|p| p.sources.iter().flatten()).enumerate();
        for (at, _) in sources.filter(|(_, source)| source.service_account_token.is_some()) {
            let path = path.child("volumes").index(index).child("projected").child("sources").index(at);
            let detail = "must not be specified when serviceAccountName is not set";
            errors.forbidden(path.child("serviceAccountToken"), detail);
        }
    }
}

fn validate_host_ports(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        for (at, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if host != 0 && host != port.container_port {
                let path = path.child("containers").index(index).child("ports").index(at).child("hostPort");
                errors.invalid(path, host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_pod as check;
    use serde_json::{Value, json};

    #[track_caller]
    fn check_container(fields: Value, expect: &str) {
        let mut container = json!({"name": "c", "image": "i"});
        for (key, value) in fields.as_object().unwrap() {
            container[key] = value.clone();
        }
        check(json!({ "containers": [container], "volumes": [{"name": "v", "emptyDir": {}}] }), expect);
    }

    #[test]
    fn containers() {
        check(json!({"containers": []}), "spec.containers: Required value");
        check(
            json!({"containers": [{}]}),
            "[spec.containers[0].name: Required value, spec.containers[0].image: Required value]",
        );
        check(
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        );
        check_container(
            json!({"imagePullPolicy": "Sometimes"}),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        );
        check_container(
            json!({"image": " i"}),
            "spec.containers[0].image: Invalid value: \" i\": must not have leading or trailing whitespace",
        );
    }

    #[test]
    fn ports_and_env() {
        check_container(json!({"ports": [{"containerPort": 80, "name": "http"}]}), "");
        check_container(json!({"ports": [{}]}), "spec.containers[0].ports[0].containerPort: Required value");
        check_container(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]}), "");
        check_container(
            json!({"env": [{"name": "A", "valueFrom": {}}]}),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        );
        check_container(
            json!({"envFrom": [{"prefix": "=", "secretRef": {"name": "s"}}]}),
            "spec.containers[0].envFrom[0].prefix: Invalid value: \"=\": a valid environment variable name must consist only of printable ASCII characters other than '='",
        );
    }

    #[test]
    fn mounts() {
        check_container(json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "b"}]}), "");
        check_container(
            json!({"volumeMounts": [{"name": "w", "mountPath": "/a"}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"w\"",
        );
        check_container(
            json!({"volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "../b"}]}),
            "spec.containers[0].volumeMounts.subPath: Invalid value: \"../b\": must not contain '..'",
        );
    }

    #[test]
    fn probes() {
        check_container(json!({"livenessProbe": {"httpGet": {"port": 80}}}), "");
        check_container(
            json!({"livenessProbe": {}}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        );
        check_container(
            json!({"livenessProbe": {"exec": {"command": ["a"]}, "successThreshold": 2}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        );
    }

    #[test]
    fn init_containers() {
        let init = |extra: Value| {
            let mut container = json!({"name": "i", "image": "i"});
            for (key, value) in extra.as_object().unwrap() {
                container[key] = value.clone();
            }
            json!({ "initContainers": [container] })
        };
        check(init(json!({"restartPolicy": "Always", "livenessProbe": {"exec": {"command": ["a"]}}})), "");
        check(
            init(json!({"livenessProbe": {"exec": {"command": ["a"]}}})),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        );
    }

    #[test]
    fn volumes() {
        check(json!({"volumes": [{"name": "v", "configMap": {"name": "c"}}]}), "");
        check(json!({"volumes": [{"name": "v", "configMap": {}}]}), "spec.volumes[0].configMap.name: Required value");
        check(
            json!({"volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]}),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        );
        check(
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/a"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        );
    }

    #[test]
    fn values_that_no_label_can_have() {
        let affinity = |field: &str, term: Value| json!({"affinity": {"nodeAffinity": {field: term}}});
        let term = json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b c"]}]});
        let preferred = json!([{"weight": 1, "preference": term.clone()}]);
        check(affinity("preferredDuringSchedulingIgnoredDuringExecution", preferred), "");
        check(
            affinity("requiredDuringSchedulingIgnoredDuringExecution", json!({ "nodeSelectorTerms": [term] })),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
        );
        let constraint = json!({"maxSkew": 1, "topologyKey": "a b", "whenUnsatisfiable": "DoNotSchedule"});
        check(json!({ "topologySpreadConstraints": [constraint] }), "");
    }

    #[test]
    fn seccomp_profiles() {
        let check_profile = |profile: Value, expect: &str| {
            let expect = expect.replace("PROFILE", "spec.securityContext.seccompProfile");
            check(json!({"securityContext": {"seccompProfile": profile}}), &expect);
        };
        let elsewhere = "can only be set when seccomp type is Localhost";
        check_profile(json!({"type": "RuntimeDefault"}), "");
        check_profile(json!({"type": "Localhost", "localhostProfile": "a/b"}), "");
        check_profile(json!({"type": "Localhost", "localhostProfile": ""}), "");
        check_profile(
            json!({"type": "Localhost"}),
            "PROFILE.localhostProfile: Required value: must be set when seccomp type is Localhost",
        );
        check_profile(
            json!({"type": "Localhost", "localhostProfile": "../a"}),
            "PROFILE.localhostProfile: Invalid value: \"../a\": must not contain '..'",
        );
        check_profile(
            json!({"type": "Localhost", "localhostProfile": "/a"}),
            "PROFILE.localhostProfile: Invalid value: \"/a\": must be a relative path",
        );
        check_profile(
            json!({"type": "Unconfined", "localhostProfile": "a"}),
            &format!(
                "PROFILE.localhostProfile: Invalid value: {{\"Type\":\"Unconfined\",\"LocalhostProfile\":\"a\"}}: {elsewhere}"
            ),
        );
        check_profile(
            json!({"localhostProfile": "a"}),
            &format!(
                "[PROFILE.type: Required value: type is required when seccompProfile is set, PROFILE.localhostProfile: Invalid value: {{\"Type\":\"\",\"LocalhostProfile\":\"a\"}}: {elsewhere}]"
            ),
        );
    }

    #[test]
    fn scheduling() {
        check(
            json!({"tolerations": [{"operator": "Equal"}]}),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        );
        check(
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]}),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        );
        check(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        );
    }

    #[test]
    fn the_rest_of_the_spec() {
        check(
            json!({"restartPolicy": "Often"}),
            "spec.restartPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        );
        check(
            json!({"dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        );
        check(
            json!({"securityContext": {"runAsUser": -1}}),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        );
        check(
            json!({"activeDeadlineSeconds": 0}),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        );
        check(
            json!({"hostname": "A"}),
            "spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        );
    }
}
