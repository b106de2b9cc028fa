//! Which pods must go so that a critical one has room. Input: the critical pod, what is short, the pods on the node.
//! Output: the victims, or what even all of them would not free.
//!
//! Upstream's choice: as few pods that have guarantees as possible, then as few burstable ones, then best-effort ones; within a
//! class, again and again the pod whose requests come closest to what is still missing.

use std::cmp::Ordering;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use semantics::node_fit::{Shortage, WholeAmounts, whole_amounts};
use semantics::resources::pod_requests;

use crate::resources::{QosClass, qos_class};
use crate::spec::{is_critical, priority};

struct Candidate {
    pod: Arc<Pod>,
    /// What its end frees; itself counts as one of `pods`.
    frees: WholeAmounts,
}

impl Candidate {
    fn new(pod: &Arc<Pod>) -> Self {
        let mut frees = whole_amounts(&pod_requests(pod));
        frees.insert("pods".to_owned(), 1);
        Self { pod: pod.clone(), frees }
    }

    fn amount(&self, resource: &str) -> i64 {
        self.frees.get(resource).copied().unwrap_or(0)
    }

    /// How much of `missing` stays missing without this pod, every resource weighing the same.
    fn distance(&self, missing: &WholeAmounts) -> f64 {
        let part = |(name, wanted): (&String, &i64)| {
            let rest = wanted.saturating_sub(self.amount(name)).max(0);
            (rest as f64 / *wanted as f64).powi(2)
        };
        missing.iter().map(part).sum()
    }

    /// Closest first, then the smallest.
    fn compare(&self, other: &Self, missing: &WholeAmounts) -> Ordering {
        let by_size = |resource: &str| self.amount(resource).cmp(&other.amount(resource));
        let by_distance = self.distance(missing).total_cmp(&other.distance(missing));
        by_distance.then_with(|| by_size("memory")).then_with(|| by_size("cpu"))
    }
}

/// The pods of `others` whose end makes up for the `shortages` that `pod` meets; `Err` holds what is missing even then.
pub(crate) fn choose_victims(
    pod: &Pod,
    shortages: &[Shortage],
    others: &[Arc<Pod>],
) -> Result<Vec<Arc<Pod>>, WholeAmounts> {
    let missing = |short: &Shortage| (short.resource.clone(), short.requested - (short.capacity - short.used));
    let missing: WholeAmounts = shortages.iter().map(missing).collect();
    let class = |class: QosClass| -> Vec<Candidate> {
        let yields = |other: &&Arc<Pod>| yields_to(other, pod) && qos_class(other) == class;
        others.iter().filter(yields).map(Candidate::new).collect()
    };
    // From the cheapest to the dearest.
    let mut classes = [QosClass::BestEffort, QosClass::Burstable, QosClass::Guaranteed].map(class);
    let mut victims: Vec<Candidate> = Vec::new();
    for dearest in (0..classes.len()).rev() {
        let (cheaper, class) = classes.split_at_mut(dearest);
        let rest = without(missing.clone(), cheaper.iter().flatten().chain(&victims));
        let chosen = choose_closest(&mut class[0], rest)?;
        victims.extend(chosen);
    }
    Ok(victims.into_iter().map(|victim| victim.pod).collect())
}

/// A critical pod goes before all that are not; among equals priority decides.
fn yields_to(other: &Pod, pod: &Pod) -> bool {
    is_critical(pod) && !is_critical(other) || priority(pod) > priority(other)
}

fn without<'a>(mut missing: WholeAmounts, gone: impl Iterator<Item = &'a Candidate>) -> WholeAmounts {
    for candidate in gone {
        for (name, amount) in &mut missing {
            *amount -= candidate.amount(name);
        }
    }
    missing.retain(|_, amount| *amount > 0);
    missing
}

fn choose_closest(candidates: &mut Vec<Candidate>, mut missing: WholeAmounts) -> Result<Vec<Candidate>, WholeAmounts> {
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let best = (0..candidates.len()).min_by(|a, b| candidates[*a].compare(&candidates[*b], &missing));
        let Some(best) = best else { return Err(missing) };
        let victim = candidates.swap_remove(best);
        missing = without(missing, std::iter::once(&victim));
        chosen.push(victim);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    /// A pod that requests milli-cores, with a guarantee if they are its limit too.
    fn pod(name: &str, cpu_milli: i64, guaranteed: bool, priority: i32) -> Arc<Pod> {
        let cpu = json!({"cpu": format!("{cpu_milli}m"), "memory": "1Mi"});
        let mut resources = json!({ "requests": cpu });
        if guaranteed {
            resources["limits"] = cpu;
        }
        if cpu_milli == 0 {
            resources = json!({});
        }
        Arc::new(
            from_value(json!({
                "metadata": {"name": name},
                "spec": {"priority": priority, "containers": [{"name": "c", "resources": resources}]}
            }))
            .unwrap(),
        )
    }

    fn check(short: &[(&str, i64)], others: &[Arc<Pod>], expect: Result<&[&str], &[(&str, i64)]>) {
        let critical = pod("critical", 1000, true, 2_000_000_000);
        let shortage = |(resource, missing): &(&str, i64)| Shortage {
            resource: (*resource).to_owned(),
            requested: *missing,
            used: 0,
            capacity: 0,
        };
        let shortages = short.iter().map(shortage).collect::<Vec<_>>();
        let found = choose_victims(&critical, &shortages, others);
        let found = found.map(|victims| victims.iter().map(|v| v.metadata.name.clone().unwrap()).collect::<Vec<_>>());
        let expect = expect
            .map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
            .map_err(|left| left.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect::<WholeAmounts>());
        assert_eq!(found, expect);
    }

    #[test]
    fn the_cheapest_class_that_suffices_goes() {
        let others = [pod("free", 0, false, 0), pod("burst", 500, false, 0), pod("sure", 500, true, 0)];
        check(&[("cpu", 300)], &others, Ok(&["burst"]));
        check(&[("cpu", 700)], &others, Ok(&["sure", "burst"]));
        check(&[("pods", 1)], &others, Ok(&["free"]));
        check(&[("cpu", 1200)], &others, Err(&[("cpu", 200)]));
    }

    #[test]
    fn within_a_class_the_closest_goes() {
        let others = [pod("big", 900, false, 0), pod("fit", 400, false, 0), pod("small", 100, false, 0)];
        check(&[("cpu", 350)], &others, Ok(&["fit"]));
        check(&[("cpu", 950)], &others, Ok(&["big", "small"]));
    }

    #[test]
    fn critical_pods_do_not_yield_to_each_other() {
        let equal = pod("equal", 500, false, 2_000_000_000);
        check(&[("cpu", 100)], &[equal], Err(&[("cpu", 100)]));
    }
}
