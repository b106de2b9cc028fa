//! One Pod against one snapshot: every node filtered, the feasible ones scored, the best one chosen.
//!
//! Every node is looked at, so that an unschedulable Pod has a reason for every node.

use crate::plugin::Verdict;
use crate::snapshot::{NodeView, PodView, Snapshot};

/// Where a Pod goes, or why it goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bind the Pod to this node.
    Bind { node: String, score: i64 },
    /// `spec.schedulingGates` is not empty: not even tried.
    Gated { gates: Vec<String> },
    /// No node fits; one verdict a node, in the order of node names.
    Unschedulable { verdicts: Vec<NodeVerdict> },
}

/// Why one node did not fit: the first plugin that said no, and its reasons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeVerdict {
    pub node: String,
    pub plugin: &'static str,
    pub reasons: Vec<String>,
    /// False where evicting Pods could not help.
    pub resolvable: bool,
}

/// Decides for `pod`. `tie_breaker` chooses among equally good nodes (any number; random spreads load).
pub fn decide(pod: &PodView, snapshot: &Snapshot, tie_breaker: u64) -> Decision {
    let gates = pod.pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_deref()).unwrap_or_default();
    if !gates.is_empty() {
        return Decision::Gated { gates: gates.iter().map(|g| g.name.clone()).collect() };
    }
    let mut feasible = Vec::new();
    let mut verdicts = Vec::new();
    for node in snapshot.nodes() {
        match filter(pod, node) {
            None => feasible.push(node),
            Some(verdict) => verdicts.push(verdict),
        }
    }
    match choose(pod, &feasible, snapshot.nodes().len(), tie_breaker) {
        Some((node, score)) => Decision::Bind { node: node.name().to_owned(), score },
        None => Decision::Unschedulable { verdicts },
    }
}

fn filter(pod: &PodView, node: &NodeView) -> Option<NodeVerdict> {
    crate::plugins::all().iter().find_map(|plugin| {
        let (reasons, resolvable) = match plugin.filter(pod, node) {
            Verdict::Fits => return None,
            Verdict::Unschedulable(reasons) => (reasons, true),
            Verdict::Unresolvable(reason) => (vec![reason], false),
        };
        Some(NodeVerdict { node: node.name().to_owned(), plugin: plugin.name(), reasons, resolvable })
    })
}

fn choose<'a>(pod: &PodView, feasible: &[&'a NodeView], total: usize, tie_breaker: u64) -> Option<(&'a NodeView, i64)> {
    if let [only] = feasible {
        return Some((only, 0));
    }
    let mut sums = vec![0i64; feasible.len()];
    for plugin in crate::plugins::all().iter().filter(|p| p.weight() > 0) {
        for (sum, score) in sums.iter_mut().zip(plugin.score(pod, feasible, total)) {
            *sum += score * plugin.weight();
        }
    }
    let best = *sums.iter().max()?;
    let tied: Vec<&NodeView> = feasible.iter().zip(&sums).filter(|(_, s)| **s == best).map(|(n, _)| *n).collect();
    tied.get((tie_breaker % tied.len().max(1) as u64) as usize).map(|node| (*node, best))
}
