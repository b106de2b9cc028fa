//! What a scheduler plugin is: a filter (may the Pod go there?), a score (how good is it there?), or both.
//!
//! A new plugin is one folder under [`crate::plugins`] and one row in [`crate::plugins::all`]; see docs/checklists/add-a-scheduler-plugin.md.

use crate::snapshot::{NodeView, PodView};

/// One filter's answer for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fits,
    /// It does not fit now; evicting other Pods could change that. Reasons are counted and shown to users.
    Unschedulable(Vec<String>),
    /// It does not fit, and no eviction would help.
    Unresolvable(String),
}

/// The highest score a plugin gives one node; upstream's MaxNodeScore.
pub const SCORE_MAX: i64 = 100;

/// A rule of placement. All methods are pure; a plugin that only scores keeps the default `filter`, and the reverse.
pub trait Plugin: Sync {
    /// The name users know from upstream's configuration.
    fn name(&self) -> &'static str;

    fn filter(&self, _pod: &PodView, _node: &NodeView) -> Verdict {
        Verdict::Fits
    }

    /// The weight of this plugin's score in the sum; 0 = it does not score.
    fn weight(&self) -> i64 {
        0
    }

    /// One score for each of the feasible `nodes`, in 0..=[`SCORE_MAX`], already normalized. `total_nodes` counts infeasible ones too.
    fn score(&self, _pod: &PodView, nodes: &[&NodeView], _total_nodes: usize) -> Vec<i64> {
        vec![0; nodes.len()]
    }
}

/// Scales raw scores so that the highest becomes [`SCORE_MAX`]; `reverse` turns "more is worse" around.
pub fn normalize(mut scores: Vec<i64>, reverse: bool) -> Vec<i64> {
    let max = scores.iter().copied().max().unwrap_or(0);
    for score in &mut scores {
        let scaled = if max == 0 { 0 } else { *score * SCORE_MAX / max };
        *score = if reverse { SCORE_MAX - scaled } else { scaled };
    }
    scores
}
