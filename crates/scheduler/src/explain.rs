//! A decision in words: the message of the `PodScheduled` condition and of the FailedScheduling event.
//!
//! The form is upstream's, because people and tools grep for it:
//! `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: ...`.

use std::collections::BTreeMap;

use crate::decide::{Decision, NodeVerdict};

/// The message for a Pod that was not bound; `None` for one that was.
pub fn explain(decision: &Decision) -> Option<String> {
    match decision {
        Decision::Bind { .. } => None,
        Decision::Gated { .. } => Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        Decision::Unschedulable { verdicts } if verdicts.is_empty() => {
            Some("no nodes available to schedule pods".to_owned())
        }
        Decision::Unschedulable { verdicts } => Some(explain_verdicts(verdicts)),
    }
}

fn explain_verdicts(verdicts: &[NodeVerdict]) -> String {
    let total = verdicts.len();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for reason in verdicts.iter().flat_map(|v| &v.reasons) {
        *counts.entry(reason).or_default() += 1;
    }
    let mut lines: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
    lines.sort();
    let helpless = verdicts.iter().filter(|v| !v.resolvable).count();
    let mut preemption = Vec::new();
    if total > helpless {
        preemption.push(format!("{} No preemption victims found for incoming pod", total - helpless));
    }
    if helpless > 0 {
        preemption.push(format!("{helpless} Preemption is not helpful for scheduling"));
    }
    preemption.sort();
    format!(
        "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: {}.",
        lines.join(", "),
        preemption.join(", ")
    )
}
