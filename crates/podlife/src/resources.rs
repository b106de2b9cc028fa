//! Requests and limits as the kernel's numbers. Input: a pod's spec, the node's memory. Output: cgroup path and limits, OOM
//! score adjustments.
//!
//! Invariant: the numbers are upstream's, so that tools reading cgroups or /proc see what they know. Sums over a pod's
//! containers and its QoS class are `semantics`'.

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use semantics::amount::milli;
pub use semantics::amount::whole;
use semantics::pod::all_containers;
pub use semantics::qos::QosClass;
use semantics::{qos, resources};

use crate::spec::{containers, is_critical, is_sidecar, pod_spec, uid};

/// The CFS period that quotas refer to.
pub const CPU_PERIOD_US: i64 = 100_000;
const CPU_QUOTA_US_MIN: i64 = 1000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// Limits of one cgroup. `None`: unlimited, or the kernel's default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupLimits {
    pub cpu_shares: Option<i64>,
    pub cpu_quota_us: Option<i64>,
    pub memory_bytes: Option<i64>,
}

/// A container's limit (`limits = true`) or request, as written: the API has made requests of lone limits.
pub fn container_resource<'a>(container: &'a Container, name: &str, limits: bool) -> Option<&'a Quantity> {
    let resources = container.resources.as_ref()?;
    if limits { resources.limits.as_ref()?.get(name) } else { resources.requests.as_ref()?.get(name) }
}

/// Best effort, burstable or guaranteed.
pub fn qos_class(pod: &Pod) -> QosClass {
    qos::qos_class(pod_spec(pod))
}

/// Requests of the pod as a whole, for admission: milli-CPU and bytes, overhead included.
pub fn pod_requests(pod: &Pod) -> (i64, i64) {
    let requests = resources::pod_requests(pod);
    (requests.milli("cpu"), requests.whole("memory"))
}

/// `<root>/kubepods[/burstable|/besteffort]/pod<uid>`.
pub fn pod_cgroup(root: &str, pod: &Pod) -> String {
    let class = match qos_class(pod) {
        QosClass::Guaranteed => "",
        QosClass::Burstable => "/burstable",
        QosClass::BestEffort => "/besteffort",
    };
    format!("{}/kubepods{class}/pod{}", root.trim_end_matches('/'), uid(pod))
}

/// CPU weight of a request in thousandths of a core.
pub fn cpu_shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

/// CFS quota of a limit; `None` for no limit.
pub fn cpu_quota_us(milli: i64) -> Option<i64> {
    (milli > 0).then(|| (milli * CPU_PERIOD_US / 1000).max(CPU_QUOTA_US_MIN))
}

/// What the container itself is limited to.
pub fn container_limits(container: &Container) -> CgroupLimits {
    let cpu = |limits| container_resource(container, "cpu", limits).map_or(0, milli);
    let memory = container_resource(container, "memory", true).map(whole).filter(|bytes| *bytes > 0);
    CgroupLimits {
        cpu_shares: Some(cpu_shares(cpu(false))),
        cpu_quota_us: cpu_quota_us(cpu(true)),
        memory_bytes: memory,
    }
}

/// Limits of the pod's own cgroup. A resource is limited as a whole only if the pod says so or every container is limited.
pub fn pod_limits(pod: &Pod) -> CgroupLimits {
    let spec = pod_spec(pod);
    let own = spec.resources.as_ref().and_then(|own| own.limits.as_ref());
    let is_limited = |name: &&str| {
        own.is_some_and(|own| own.contains_key(*name))
            || all_containers(spec).all(|container| container_resource(container, name, true).is_some())
    };
    let limits = resources::spec_limits(spec);
    CgroupLimits {
        cpu_shares: Some(cpu_shares(pod_requests(pod).0)),
        cpu_quota_us: Some("cpu").filter(is_limited).and_then(|name| cpu_quota_us(limits.milli(name))),
        memory_bytes: Some("memory").filter(is_limited).map(|name| limits.whole(name)).filter(|bytes| *bytes > 0),
    }
}

/// How soon the kernel kills it when memory is short: -997 (last) to 1000 (first).
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    let critical = is_critical(pod) && pod_spec(pod).priority_class_name.as_deref() == Some("system-node-critical");
    match qos_class(pod) {
        _ if critical => -997,
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = |container| container_resource(container, "memory", false).map_or(0, whole);
            let smallest = containers(pod).iter().map(request).min().unwrap_or(0);
            let own = request(container);
            // A sidecar outlives the ordinary containers it serves.
            let request = if is_sidecar(container) { own.max(smallest) } else { own };
            let capacity = i128::from(node_memory_bytes.max(1));
            let score = 1000 - i128::from(request) * 1000 / capacity;
            i64::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
        let list = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect())
        };
        let resources = k8s_openapi::api::core::v1::ResourceRequirements {
            requests: list(requests),
            limits: list(limits),
            ..Default::default()
        };
        let container = Container { name: "c".to_owned(), resources: Some(resources), ..Default::default() };
        let spec = k8s_openapi::api::core::v1::PodSpec { containers: vec![container], ..Default::default() };
        Pod { spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn classes_and_limits() {
        let both = [("cpu", "100m"), ("memory", "64Mi")];
        assert_eq!(pod_cgroup("/", &pod(&[], &[])), "/kubepods/besteffort/pod");
        assert_eq!(pod_cgroup("/", &pod(&both, &both)), "/kubepods/pod");
        assert_eq!(pod_cgroup("/", &pod(&[("cpu", "100m")], &[])), "/kubepods/burstable/pod");
        assert_eq!(
            pod_limits(&pod(&both, &both)),
            CgroupLimits { cpu_shares: Some(102), cpu_quota_us: Some(10_000), memory_bytes: Some(64 << 20) }
        );
        let burstable = pod(&[("memory", "1Gi")], &[]);
        assert_eq!(oom_score_adj(&burstable, &containers(&burstable)[0], 4 << 30), 750);
    }

    #[test]
    fn a_pod_is_limited_if_it_says_so_or_all_its_containers_are() {
        let both = [("cpu", "100m"), ("memory", "64Mi")];
        let mut half = pod(&both, &both);
        let spec = half.spec.as_mut().unwrap();
        spec.containers.push(Container { name: "free".to_owned(), ..Default::default() });
        assert_eq!(pod_limits(&half).memory_bytes, None);
        let whole_pod = pod(&[], &[("memory", "1Gi")]).spec.unwrap().containers.remove(0).resources;
        half.spec.as_mut().unwrap().resources = whole_pod;
        assert_eq!((pod_limits(&half).memory_bytes, pod_limits(&half).cpu_quota_us), (Some(1 << 30), None));
    }
}
