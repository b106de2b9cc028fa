//! Defaults of pod specs and templates: containers, probes, ports, environment, volumes.
//!
//! `default_pod_spec` is what templates and pods share; what only pods get (requests from limits, service links, host
//! ports) is in the Pod's own rules.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, LifecycleHandler,
    ObjectFieldSelector, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
};

use super::volume::default_volume;
use super::{fill, fill_number, fill_text, text};
use crate::image::default_pull_policy;
use crate::resources::round_up;

/// The template of a workload.
pub fn default_template(template: &mut PodTemplateSpec) {
    default_pod_spec(template.spec.get_or_insert_default());
}

pub fn default_pod_spec(spec: &mut PodSpec) {
    for volume in spec.volumes.iter_mut().flatten() {
        default_volume(volume);
    }
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        default_container(container);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        default_ephemeral_container(container);
    }
    round_up(&mut spec.overhead);
    if let Some(resources) = &mut spec.resources {
        default_resources(resources);
    }
    default_service_account(spec);
    fill_text(&mut spec.dns_policy, "ClusterFirst");
    fill_text(&mut spec.restart_policy, "Always");
    spec.security_context.get_or_insert_default();
    fill(&mut spec.termination_grace_period_seconds, 30);
    fill_text(&mut spec.scheduler_name, "default-scheduler");
}

/// The old and the new name of the field are kept equal; the new one wins.
fn default_service_account(spec: &mut PodSpec) {
    let name = match text(&spec.service_account_name) {
        "" => text(&spec.service_account),
        name => name,
    };
    let name = Some(name.to_owned()).filter(|name| !name.is_empty());
    spec.service_account.clone_from(&name);
    spec.service_account_name = name;
}

/// Ordinary and ephemeral containers are two types of the API with the same fields to fill.
macro_rules! default_container {
    ($container:expr) => {
        let container = $container;
        default_image(&container.image, &mut container.image_pull_policy);
        fill_text(&mut container.termination_message_path, "/dev/termination-log");
        fill_text(&mut container.termination_message_policy, "File");
        default_ports(&mut container.ports);
        default_env(&mut container.env);
        default_resources(container.resources.get_or_insert_default());
        for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe] {
            default_probe(probe);
        }
        default_lifecycle(&mut container.lifecycle);
    };
}

fn default_container(container: &mut Container) {
    default_container!(container);
}

fn default_ephemeral_container(container: &mut EphemeralContainer) {
    default_container!(container);
}

fn default_image(image: &Option<String>, policy: &mut Option<String>) {
    if policy.as_deref().is_none_or(str::is_empty) {
        *policy = Some(default_pull_policy(text(image)).to_owned());
    }
}

fn default_ports(ports: &mut Option<Vec<ContainerPort>>) {
    for port in ports.iter_mut().flatten() {
        fill_text(&mut port.protocol, "TCP");
    }
}

fn default_env(env: &mut Option<Vec<EnvVar>>) {
    for variable in env.iter_mut().flatten() {
        if let Some(source) = &mut variable.value_from {
            default_field_ref(&mut source.field_ref);
            if let Some(file) = &mut source.file_key_ref {
                fill(&mut file.optional, false);
            }
        }
    }
}

pub(crate) fn default_field_ref(selector: &mut Option<ObjectFieldSelector>) {
    if let Some(selector) = selector {
        fill_text(&mut selector.api_version, "v1");
    }
}

fn default_resources(resources: &mut ResourceRequirements) {
    round_up(&mut resources.limits);
    round_up(&mut resources.requests);
}

fn default_probe(probe: &mut Option<Probe>) {
    let Some(probe) = probe else { return };
    fill_number(&mut probe.timeout_seconds, 1);
    fill_number(&mut probe.period_seconds, 10);
    fill_number(&mut probe.success_threshold, 1);
    fill_number(&mut probe.failure_threshold, 3);
    default_http(&mut probe.http_get);
    if let Some(grpc) = &mut probe.grpc {
        fill(&mut grpc.service, String::new());
    }
}

fn default_http(action: &mut Option<HTTPGetAction>) {
    if let Some(action) = action {
        fill_text(&mut action.path, "/");
        fill_text(&mut action.scheme, "HTTP");
    }
}

fn default_lifecycle(lifecycle: &mut Option<Lifecycle>) {
    let handler = |handler: &mut Option<LifecycleHandler>| {
        if let Some(handler) = handler {
            default_http(&mut handler.http_get);
        }
    };
    if let Some(lifecycle) = lifecycle {
        handler(&mut lifecycle.post_start);
        handler(&mut lifecycle.pre_stop);
    }
}
