//! Pull decisions. What an image may be called is in `semantics::image`.

pub use semantics::image::{apply_default_tag, default_pull_policy, registry_of};

/// What to do about an image, given its policy and whether it is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullDecision {
    UsePresent,
    Pull,
    /// Policy Never and not there.
    Refuse,
}

pub fn decide_pull(policy: &str, present: bool) -> PullDecision {
    match (policy, present) {
        ("Always", _) | ("IfNotPresent", false) => PullDecision::Pull,
        ("Never", false) => PullDecision::Refuse,
        _ => PullDecision::UsePresent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls() {
        assert_eq!(decide_pull("Always", true), PullDecision::Pull);
        assert_eq!(decide_pull("IfNotPresent", true), PullDecision::UsePresent);
        assert_eq!(decide_pull("Never", false), PullDecision::Refuse);
    }
}
