//! Pods: their number and what they request and may use at most; the scopes that sort them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerStatus, Pod, PodAffinityTerm, PodSpec, ScopedResourceSelectorRequirement,
};

use super::selects;
use crate::pod::{all_containers, condition, is_pod_terminal};
use crate::qos::{QosClass, qos_class, sets_pod_level};
use crate::resources::{
    Quantities, aggregate, is_huge_page, limits_of, requests_of, with_pod_limits, with_pod_requests,
};
use crate::validate::resources::is_extended;

const NAMES: [&str; 10] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "pods",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// If a quota limits one of these, every container has to specify it. No others: upstream regrets these.
const REQUIRED: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

pub(super) fn is_name(name: &str) -> bool {
    let requested = name.strip_prefix("requests.");
    let is_extended_request =
        |name: &str| name.starts_with(DEVICE_CLASS) || name.contains('/') && !name.contains("kubernetes.io/");
    NAMES.contains(&name) || is_huge_page(requested.unwrap_or(name)) || requested.is_some_and(is_extended_request)
}

pub(super) fn usage(pod: &Pod, now: Timestamp) -> Quantities {
    let mut usage = Quantities::whole([("count/pods".to_owned(), 1)]);
    if let Some(spec) = pod.spec.as_ref().filter(|_| is_using(pod, now)) {
        usage.add(&usage_of(&requests(pod, spec), &limits(pod, spec)));
    }
    usage
}

/// The names in a quota of what is requested and limited, `pods` among them.
fn usage_of(requests: &Quantities, limits: &Quantities) -> Quantities {
    let mut usage = Quantities::whole([("pods".to_owned(), 1)]);
    for (name, amount) in requests.iter() {
        let is_plain = matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_page(name);
        if is_plain {
            usage.insert(name, amount.clone());
        }
        if is_plain || is_extended(name) || name.starts_with(DEVICE_CLASS) {
            usage.insert(&format!("requests.{name}"), amount.clone());
        }
    }
    for (name, amount) in limits.iter() {
        if matches!(name, "cpu" | "memory" | "ephemeral-storage") {
            usage.insert(&format!("limits.{name}"), amount.clone());
        }
    }
    usage
}

/// A finished pod uses nothing, and neither does one whose node does not end it in time: its user could not replace it.
fn is_using(pod: &Pod, now: Timestamp) -> bool {
    let meta = &pod.metadata;
    let overdue = meta
        .deletion_timestamp
        .as_ref()
        .zip(meta.deletion_grace_period_seconds)
        .is_some_and(|(at, grace)| at.0.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|end| now > end));
    !is_pod_terminal(pod) && !overdue
}

/// While a resize is under way, the most of what is wanted, promised and in force counts.
fn requests(pod: &Pod, spec: &PodSpec) -> Quantities {
    let refused = is_resize_infeasible(pod);
    let promised = |container| {
        let allocated = status_of(pod, container).and_then(|status| status.allocated_resources.as_ref());
        allocated.or_else(|| requests_of(container).filter(|_| !refused))
    };
    let in_force = |container| {
        let status = status_of(pod, container);
        status.and_then(|status| status.resources.as_ref()?.requests.as_ref()).or_else(|| promised(container))
    };
    let mut sum: Quantities = if refused { Quantities::default() } else { aggregate(spec, requests_of) };
    sum.raise_to(&aggregate(spec, in_force));
    sum.raise_to(&aggregate(spec, promised));
    with_pod_requests(spec, sum)
}

/// As [`requests`]; limits are not promised.
fn limits(pod: &Pod, spec: &PodSpec) -> Quantities {
    let refused = is_resize_infeasible(pod);
    let in_force = |container| {
        let status = status_of(pod, container).and_then(|status| status.resources.as_ref()?.limits.as_ref());
        status.or_else(|| limits_of(container).filter(|_| !refused))
    };
    let mut sum: Quantities = if refused { Quantities::default() } else { aggregate(spec, limits_of) };
    sum.raise_to(&aggregate(spec, in_force));
    with_pod_limits(spec, sum)
}

fn is_resize_infeasible(pod: &Pod) -> bool {
    condition(pod, "PodResizePending").is_some_and(|pending| pending.reason.as_deref() == Some("Infeasible"))
}

fn status_of<'a>(pod: &'a Pod, container: &Container) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let mut all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.find(|status| status.name == container.name)
}

/// `must specify cpu for: a,b; memory for: a`: what the quota limits and containers leave open.
pub(super) fn unspecified(pod: &Pod, is_limited: impl Fn(&str) -> bool) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.resources.as_ref().is_some_and(sets_pod_level) {
        return None;
    }
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for container in all_containers(spec) {
        let (requests, limits) = (requests_of(container), limits_of(container));
        let usage = usage_of(&Quantities::from_list(requests), &Quantities::from_list(limits));
        for name in REQUIRED.iter().filter(|name| is_limited(name) && !usage.contains(name)) {
            missing.entry(name).or_default().insert(&container.name);
        }
    }
    let parts = missing.into_iter().map(|(name, containers)| {
        let containers: Vec<&str> = containers.into_iter().collect();
        format!("{name} for: {}", containers.join(","))
    });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| format!("must specify {}", parts.join("; ")))
}

pub(super) fn is_in_scope(pod: &Pod, scope: &ScopedResourceSelectorRequirement) -> bool {
    match scope.scope_name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => is_best_effort(pod),
        "NotBestEffort" => !is_best_effort(pod),
        "PriorityClass" => {
            let class = pod.spec.as_ref().and_then(|spec| spec.priority_class_name.as_deref());
            selects(scope, class.filter(|class| !class.is_empty()))
        }
        "CrossNamespacePodAffinity" => {
            pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref()).is_some_and(looks_beyond_namespace)
        }
        _ => false,
    }
}

/// Whether the pod ends by itself: it has a deadline.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds).is_some_and(|seconds| seconds >= 0)
}

fn is_best_effort(pod: &Pod) -> bool {
    let told = pod.status.as_ref().and_then(|status| status.qos_class.as_deref()).filter(|class| !class.is_empty());
    let best_effort = QosClass::BestEffort;
    match told {
        Some(class) => class == best_effort.as_str(),
        None => pod.spec.as_ref().is_none_or(|spec| qos_class(spec) == best_effort),
    }
}

fn looks_beyond_namespace(affinity: &Affinity) -> bool {
    let beyond = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    let near = affinity.pod_affinity.as_ref().map(|affinity| {
        (
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    let apart = affinity.pod_anti_affinity.as_ref().map(|affinity| {
        (
            &affinity.required_during_scheduling_ignored_during_execution,
            &affinity.preferred_during_scheduling_ignored_during_execution,
        )
    });
    near.into_iter().chain(apart).any(|(required, preferred)| {
        required.iter().flatten().any(beyond) || preferred.iter().flatten().any(|term| beyond(&term.pod_affinity_term))
    })
}
