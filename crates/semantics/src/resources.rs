//! Effective resources of a pod: what its containers, sidecars, init containers, pod-level resources and overhead add up to.
//!
//! Input: a pod spec. Output: `Amounts` by resource name, exact, or `Quantities` that print as they came. The rule: app
//! containers and sidecars run together; each init container runs with the sidecars started before it; the pod needs the
//! larger of the two at every resource. A pod-level request replaces the sum for cpu, memory and huge pages; overhead comes
//! on top. Status is not looked at.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::amount::{div_up, nanos_or_zero, saturate};
use crate::pod::is_sidecar;

/// A resource list as it stands in the API.
pub type ResourceList = BTreeMap<String, Quantity>;

/// What the entries of a list are summed as.
pub trait Number: Clone + Ord {
    /// Zero for a text that is no quantity (decoding has refused it before).
    fn of(quantity: &Quantity) -> Self;
    fn plus(&self, other: &Self) -> Self;
    fn is_zero(&self) -> bool;
}

/// Billionths.
impl Number for i128 {
    fn of(quantity: &Quantity) -> Self {
        nanos_or_zero(quantity)
    }

    fn plus(&self, other: &Self) -> Self {
        self + other
    }

    fn is_zero(&self) -> bool {
        *self == 0
    }
}

/// A quantity with its format; a sum prints as its first part does.
impl Number for api::quantity::Quantity {
    fn of(quantity: &Quantity) -> Self {
        Self::parse(&quantity.0).unwrap_or_default()
    }

    fn plus(&self, other: &Self) -> Self {
        self.add(other)
    }

    fn is_zero(&self) -> bool {
        self.is_zero()
    }
}

/// Numbers by resource name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Totals<N>(pub(crate) BTreeMap<String, N>);

/// Exact amounts by resource name, in billionths.
pub type Amounts = Totals<i128>;

/// Amounts by resource name that keep the format in which they were written.
pub type Quantities = Totals<api::quantity::Quantity>;

impl<N: Number> Totals<N> {
    pub fn from_list(list: Option<&ResourceList>) -> Self {
        Self(list.into_iter().flatten().map(|(name, quantity)| (name.clone(), N::of(quantity))).collect())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub fn add(&mut self, other: &Self) {
        for (name, more) in &other.0 {
            match self.0.get_mut(name) {
                Some(sum) => *sum = sum.plus(more),
                None => drop(self.0.insert(name.clone(), more.clone())),
            }
        }
    }

    /// Raises each amount to the other's where that is larger.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, floor) in &other.0 {
            match self.0.get_mut(name) {
                Some(slot) if *slot < *floor => *slot = floor.clone(),
                Some(_) => {}
                None => drop(self.0.insert(name.clone(), floor.clone())),
            }
        }
    }
}

impl Amounts {
    /// Names with their amounts in billionths, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i128)> {
        self.0.iter().map(|(name, nanos)| (name.as_str(), *nanos))
    }

    /// Billionths; 0 for a resource not in the list.
    pub fn nanos(&self, name: &str) -> i128 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Thousandths, rounded up: the usual form of cpu.
    pub fn milli(&self, name: &str) -> i64 {
        saturate(div_up(self.nanos(name), 1_000_000))
    }

    /// Whole units, rounded up: the usual form of everything but cpu.
    pub fn whole(&self, name: &str) -> i64 {
        saturate(div_up(self.nanos(name), 1_000_000_000))
    }

    /// The list as the API writes it, canonical texts.
    pub fn to_list(&self) -> ResourceList {
        self.0.iter().map(|(name, nanos)| (name.clone(), crate::amount::quantity_of(name, *nanos))).collect()
    }
}

/// What the scheduler must find free for the pod: requests with pod-level requests and overhead.
pub fn pod_requests(pod: &Pod) -> Amounts {
    pod.spec.as_ref().map(spec_requests).unwrap_or_default()
}

/// [`pod_requests`] of a spec.
pub fn spec_requests(spec: &PodSpec) -> Amounts {
    with_pod_requests(spec, container_requests(spec))
}

/// The most the pod may use: limits with pod-level limits; overhead is added where there is a limit.
pub fn pod_limits(pod: &Pod) -> Amounts {
    pod.spec.as_ref().map(spec_limits).unwrap_or_default()
}

/// [`pod_limits`] of a spec.
pub fn spec_limits(spec: &PodSpec) -> Amounts {
    with_pod_limits(spec, container_limits(spec))
}

/// Requests of the containers alone.
pub fn container_requests(spec: &PodSpec) -> Amounts {
    aggregate(spec, requests_of)
}

/// Limits of the containers alone.
pub fn container_limits(spec: &PodSpec) -> Amounts {
    aggregate(spec, limits_of)
}

/// The containers' requests -> the pod's.
pub(crate) fn with_pod_requests<N: Number>(spec: &PodSpec, mut sum: Totals<N>) -> Totals<N> {
    apply_pod_level(&mut sum, spec.resources.as_ref().and_then(|r| r.requests.as_ref()));
    sum.add(&Totals::from_list(spec.overhead.as_ref()));
    sum
}

/// The containers' limits -> the pod's.
pub(crate) fn with_pod_limits<N: Number>(spec: &PodSpec, mut sum: Totals<N>) -> Totals<N> {
    apply_pod_level(&mut sum, spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    for (name, overhead) in &Totals::<N>::from_list(spec.overhead.as_ref()).0 {
        if let Some(limit) = sum.0.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit = limit.plus(overhead);
        }
    }
    sum
}

pub(crate) fn requests_of(container: &Container) -> Option<&ResourceList> {
    container.resources.as_ref()?.requests.as_ref()
}

pub(crate) fn limits_of(container: &Container) -> Option<&ResourceList> {
    container.resources.as_ref()?.limits.as_ref()
}

/// True for the resources that may be set for the whole pod.
pub fn is_pod_level_resource(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// What the names of huge pages begin with, before their size.
pub(crate) const HUGE_PAGES_PREFIX: &str = "hugepages-";

pub fn is_huge_page(name: &str) -> bool {
    name.starts_with(HUGE_PAGES_PREFIX)
}

/// Quantities of a list are kept to thousandths, rounded up, in canonical text.
pub fn round_up(list: &mut Option<ResourceList>) {
    for quantity in list.iter_mut().flatten().map(|(_, quantity)| quantity) {
        crate::amount::round_up_to_milli(quantity);
    }
}

fn apply_pod_level<N: Number>(sum: &mut Totals<N>, list: Option<&ResourceList>) {
    for (name, quantity) in list.into_iter().flatten() {
        if is_pod_level_resource(name) {
            sum.0.insert(name.clone(), N::of(quantity));
        }
    }
}

/// What the containers need together, each as `of` says.
pub(crate) fn aggregate<'a, N: Number>(
    spec: &'a PodSpec,
    of: impl Fn(&'a Container) -> Option<&'a ResourceList>,
) -> Totals<N> {
    let of = |container| Totals::from_list(of(container));
    let mut running = Totals(BTreeMap::new());
    for container in &spec.containers {
        running.add(&of(container));
    }
    let mut sidecars = Totals(BTreeMap::new());
    let mut starting = Totals(BTreeMap::new());
    for container in spec.init_containers.iter().flatten() {
        let mut need = of(container);
        if is_sidecar(container) {
            running.add(&need);
            sidecars.add(&need);
            need = sidecars.clone();
        } else {
            need.add(&sidecars);
        }
        starting.raise_to(&need);
    }
    running.raise_to(&starting);
    running
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn container(cpu: &str) -> Value {
        json!({"name": "c", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn sidecar(cpu: &str) -> Value {
        let mut value = container(cpu);
        value["restartPolicy"] = json!("Always");
        value
    }

    fn check(spec: Value, cpu_milli: i64) {
        let spec: PodSpec = from_value(spec.clone()).unwrap();
        assert_eq!(spec_requests(&spec).milli("cpu"), cpu_milli, "{spec:?}");
    }

    #[test]
    fn containers_add_and_init_containers_take_turns() {
        check(json!({"containers": [container("100m"), container("0.2")]}), 300);
        check(json!({"containers": [container("100m")], "initContainers": [container("1"), container("2")]}), 2000);
        check(json!({"containers": [container("3")], "initContainers": [container("1")]}), 3000);
    }

    #[test]
    fn sidecars_run_with_all_that_start_after_them() {
        check(json!({"containers": [container("1")], "initContainers": [sidecar("500m"), container("2")]}), 2500);
        check(json!({"containers": [container("1")], "initContainers": [container("2"), sidecar("500m")]}), 2000);
    }

    #[test]
    fn pod_level_replaces_and_overhead_adds() {
        check(json!({"containers": [container("1")], "resources": {"requests": {"cpu": "3"}}}), 3000);
        check(json!({"containers": [container("1")], "overhead": {"cpu": "250m"}}), 1250);
    }
}
