//! Requests and limits as the kernel's numbers. Input: a pod's spec, the node's memory. Output: QoS class, cgroup path
//! and limits, OOM score adjustments.
//!
//! Invariant: the numbers are upstream's, so that tools reading cgroups or /proc see what they know.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::spec::{containers, init_containers, is_sidecar, pod_spec, uid};

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

type List = BTreeMap<String, Quantity>;

/// Thousandths, rounded up; 0 for what does not parse (the API validated it).
pub fn milli_value(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 3)
}

/// Whole units (bytes), rounded up.
pub fn whole_value(quantity: &Quantity) -> i64 {
    scaled(&quantity.0, 0)
}

/// The quantity times 10^power, rounded up. Exact in 128 bits over billionths.
fn scaled(text: &str, power: u32) -> i64 {
    let split = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let Some((numerator, denominator)) = parse_decimal(number) else { return 0 };
    let Some((up, down)) = suffix_factor(suffix) else { return 0 };
    let top = numerator.checked_mul(up).and_then(|n| n.checked_mul(10_i128.pow(power)));
    let (Some(top), Some(bottom)) = (top, denominator.checked_mul(down)) else { return i64::MAX };
    let rounded = if top >= 0 { (top + bottom - 1) / bottom } else { top / bottom };
    i64::try_from(rounded).unwrap_or(if rounded > 0 { i64::MAX } else { i64::MIN })
}

fn parse_decimal(number: &str) -> Option<(i128, i128)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    let power = u32::try_from(fraction.len()).ok().filter(|power| *power <= 18)?;
    Some((digits.parse().ok()?, 10_i128.pow(power)))
}

fn suffix_factor(suffix: &str) -> Option<(i128, i128)> {
    let factor = match suffix {
        "" => (1, 1),
        "n" => (1, 1_000_000_000),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (1_000_000_000, 1),
        "T" => (10_i128.pow(12), 1),
        "P" => (10_i128.pow(15), 1),
        "E" => (10_i128.pow(18), 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let magnitude = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.unsigned_abs() <= 18)?;
            if power < 0 { (1, magnitude) } else { (magnitude, 1) }
        }
    };
    Some(factor)
}

/// A container's limit (`limits = true`) or request; a missing request is the limit, as the API defaults it.
pub fn container_resource(container: &Container, name: &str, limits: bool) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let pick = |list: &Option<List>| list.as_ref().and_then(|list| list.get(name)).cloned();
    if limits { pick(&resources.limits) } else { pick(&resources.requests).or_else(|| pick(&resources.limits)) }
}

/// Guaranteed, Burstable or BestEffort.
pub fn qos_class(pod: &Pod) -> &'static str {
    let mut any = false;
    let mut guaranteed = true;
    for container in init_containers(pod).iter().chain(containers(pod)) {
        for name in ["cpu", "memory"] {
            let positive = |quantity: Option<Quantity>| quantity.map(|q| milli_value(&q)).filter(|value| *value > 0);
            let request = positive(container_resource(container, name, false));
            let limit = positive(container_resource(container, name, true));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

/// `<root>/kubepods[/burstable|/besteffort]/pod<uid>`.
pub fn pod_cgroup(root: &str, pod: &Pod) -> String {
    let class = match qos_class(pod) {
        "Guaranteed" => "",
        "Burstable" => "/burstable",
        _ => "/besteffort",
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
    let milli = |limits| container_resource(container, "cpu", limits).map_or(0, |quantity| milli_value(&quantity));
    let memory = container_resource(container, "memory", true).map(|q| whole_value(&q)).filter(|bytes| *bytes > 0);
    CgroupLimits {
        cpu_shares: Some(cpu_shares(milli(false))),
        cpu_quota_us: cpu_quota_us(milli(true)),
        memory_bytes: memory,
    }
}

/// Sum over what runs at the same time, or the largest init container, per upstream's effective requests.
/// `None` where some container has no limit.
fn effective(pod: &Pod, limits: bool, value: impl Fn(&Container) -> Option<i64>) -> Option<i64> {
    let own = pod_spec(pod).resources.as_ref();
    debug_assert!(own.is_none() || limits || own.is_some());
    let mut sidecars = 0;
    let mut peak = 0;
    for container in init_containers(pod) {
        let amount = value(container);
        if limits && amount.is_none() {
            return None;
        }
        let amount = amount.unwrap_or(0);
        if is_sidecar(container) {
            sidecars += amount;
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(sidecars + amount);
        }
    }
    let mut sum = sidecars;
    for container in containers(pod) {
        let amount = value(container);
        if limits && amount.is_none() {
            return None;
        }
        sum += amount.unwrap_or(0);
    }
    Some(sum.max(peak))
}

/// Requests of the pod as a whole, for admission: milli-CPU and bytes, overhead included.
pub fn pod_requests(pod: &Pod) -> (i64, i64) {
    let cpu = pod_amount(pod, "cpu", false, milli_value).unwrap_or(0);
    let memory = pod_amount(pod, "memory", false, whole_value).unwrap_or(0);
    (cpu, memory)
}

/// Pod-level resources win over the sum; overhead is added.
fn pod_amount(pod: &Pod, name: &str, limits: bool, value: fn(&Quantity) -> i64) -> Option<i64> {
    let own = pod_spec(pod).resources.as_ref();
    let own = own.and_then(|own| if limits { own.limits.as_ref() } else { own.requests.as_ref() });
    let overhead = pod_spec(pod).overhead.as_ref().and_then(|list| list.get(name)).map_or(0, value);
    if let Some(quantity) = own.and_then(|list| list.get(name)) {
        return Some(value(quantity) + overhead);
    }
    let of = |container: &Container| container_resource(container, name, limits).map(|quantity| value(&quantity));
    effective(pod, limits, of).filter(|amount| !limits || *amount > 0).map(|amount| amount + overhead)
}

/// Limits of the pod's own cgroup.
pub fn pod_limits(pod: &Pod) -> CgroupLimits {
    CgroupLimits {
        cpu_shares: Some(cpu_shares(pod_requests(pod).0)),
        cpu_quota_us: pod_amount(pod, "cpu", true, milli_value).and_then(cpu_quota_us),
        memory_bytes: pod_amount(pod, "memory", true, whole_value),
    }
}

/// How soon the kernel kills it when memory is short: -997 (last) to 1000 (first).
pub fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: i64) -> i64 {
    let critical = pod_spec(pod).priority.is_some_and(|priority| priority >= 2_000_000_000)
        && pod_spec(pod).priority_class_name.as_deref() == Some("system-node-critical");
    match qos_class(pod) {
        _ if critical => -997,
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let request = container_resource(container, "memory", false).map_or(0, |q| whole_value(&q));
            let smallest = containers(pod)
                .iter()
                .map(|c| container_resource(c, "memory", false).map_or(0, |q| whole_value(&q)))
                .min()
                .unwrap_or(0);
            // A sidecar outlives the ordinary containers it serves.
            let request = if is_sidecar(container) { request.max(smallest) } else { request };
            let capacity = i128::from(node_memory_bytes.max(1));
            let score = 1000 - i128::from(request) * 1000 / capacity;
            i64::try_from(score.clamp(3, 999)).unwrap_or(999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, milli: i64, whole: i64) {
        let quantity = Quantity(text.to_owned());
        assert_eq!((milli_value(&quantity), whole_value(&quantity)), (milli, whole), "{text}");
    }

    #[test]
    fn quantities() {
        check("250m", 250, 1);
        check("1.5", 1500, 2);
        check("64Mi", 64 * 1024 * 1024 * 1000, 64 * 1024 * 1024);
        check("1e3", 1_000_000, 1000);
        check("100u", 1, 1);
        check("2G", 2_000_000_000_000, 2_000_000_000);
    }

    fn pod(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
        let list = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), Quantity((*v).to_owned()))).collect::<List>())
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
        assert_eq!(qos_class(&pod(&[], &[])), "BestEffort");
        assert_eq!(qos_class(&pod(&both, &both)), "Guaranteed");
        assert_eq!(qos_class(&pod(&[("cpu", "100m")], &[])), "Burstable");
        assert_eq!(
            pod_limits(&pod(&both, &both)),
            CgroupLimits { cpu_shares: Some(102), cpu_quota_us: Some(10_000), memory_bytes: Some(64 << 20) }
        );
        let burstable = pod(&[("memory", "1Gi")], &[]);
        assert_eq!(oom_score_adj(&burstable, &containers(&burstable)[0], 4 << 30), 750);
    }
}
