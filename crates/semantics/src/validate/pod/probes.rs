//! Probes and lifecycle hooks: exactly one handler, sensible numbers.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::http_header_name;
use crate::validate::numbers::validate_count;
use crate::validate::ports::validate_port_or_name;

pub(super) fn validate_container_probes(container: &Container, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    if let Some(lifecycle) = &container.lifecycle {
        let path = path.child("lifecycle");
        for (name, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
            if let Some(hook) = hook {
                validate_handler(&Handler::of_hook(hook), grace, &path.child(name), errors);
            }
        }
    }
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (name, probe) in probes {
        if let Some(probe) = probe {
            validate_probe(probe, name == "readinessProbe", grace, &path.child(name), errors);
        }
    }
}

fn validate_probe(probe: &Probe, readiness: bool, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    validate_handler(&Handler::of_probe(probe), grace, path, errors);
    let counts = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (name, count) in counts {
        validate_count(count, path.child(name), errors);
    }
    let seconds_path = path.child("terminationGracePeriodSeconds");
    if let Some(seconds) = probe.termination_grace_period_seconds {
        if seconds <= 0 {
            errors.invalid(seconds_path.clone(), seconds, "must be greater than 0");
        }
        if readiness {
            errors.invalid(seconds_path, seconds, "must not be set for readinessProbes");
        }
    }
    let successes = probe.success_threshold.unwrap_or(1);
    if !readiness && successes != 1 {
        errors.invalid(path.child("successThreshold"), successes, "must be 1");
    }
}

/// What a probe and a hook have in common.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl<'a> Handler<'a> {
    fn of_probe(probe: &'a Probe) -> Self {
        Self {
            exec: probe.exec.as_ref(),
            http: probe.http_get.as_ref(),
            tcp: probe.tcp_socket.as_ref(),
            grpc: probe.grpc.as_ref(),
            sleep: None,
        }
    }

    fn of_hook(hook: &'a LifecycleHandler) -> Self {
        Self {
            exec: hook.exec.as_ref(),
            http: hook.http_get.as_ref(),
            tcp: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        }
    }
}

fn validate_handler(handler: &Handler<'_>, grace: Option<i64>, path: &Path, errors: &mut Errors) {
    let given = [
        ("exec", handler.exec.is_some()),
        ("httpGet", handler.http.is_some()),
        ("tcpSocket", handler.tcp.is_some()),
        ("grpc", handler.grpc.is_some()),
        ("sleep", handler.sleep.is_some()),
    ];
    let mut given = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name);
    let Some(first) = given.next() else { return errors.required(path.clone(), "must specify a handler type") };
    for other in given {
        errors.forbidden(path.child(other), "may not specify more than 1 handler type");
    }
    let path = path.child(first);
    match (first, handler) {
        ("exec", Handler { exec: Some(exec), .. }) if exec.command.as_ref().is_none_or(Vec::is_empty) => {
            errors.required(path.child("command"), "");
        }
        ("httpGet", Handler { http: Some(http), .. }) => validate_http(http, &path, errors),
        ("tcpSocket", Handler { tcp: Some(tcp), .. }) => validate_port_or_name(&tcp.port, &path.child("port"), errors),
        ("grpc", Handler { grpc: Some(grpc), .. }) => {
            validate_port_or_name(&IntOrString::Int(grpc.port), &path.child("port"), errors);
        }
        ("sleep", Handler { sleep: Some(sleep), .. }) => {
            let grace = grace.unwrap_or(i64::MAX);
            if !(0..=grace).contains(&sleep.seconds) {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.invalid(path, sleep.seconds, detail);
            }
        }
        _ => {}
    }
}

fn validate_http(http: &HTTPGetAction, path: &Path, errors: &mut Errors) {
    if text(&http.path).is_empty() {
        errors.required(path.child("path"), "");
    }
    validate_port_or_name(&http.port, &path.child("port"), errors);
    if !matches!(text(&http.scheme), "HTTP" | "HTTPS") {
        errors.not_supported(path.child("scheme"), text(&http.scheme), &["HTTP", "HTTPS"]);
    }
    for header in http.http_headers.iter().flatten() {
        errors.invalid_each(&path.child("httpHeaders"), &header.name, http_header_name(&header.name));
    }
}
