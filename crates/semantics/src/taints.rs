//! Taints and tolerations: which taints of a node a pod does not tolerate.
//!
//! Input: structs of k8s-openapi. Output: yes or no, or the first taint in the way. An empty operator means `Equal`, an
//! empty key with `Exists` tolerates all keys, an empty effect all effects. The comparison operators `Lt` and `Gt` are
//! honoured for decimal integers.

use k8s_openapi::api::core::v1::{Taint, Toleration};

pub const NO_SCHEDULE: &str = "NoSchedule";
pub const NO_EXECUTE: &str = "NoExecute";

/// True if `toleration` lets a pod stand `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let found = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => wanted == found,
        "Exists" => true,
        "Lt" => compare(wanted, found, |bound, value| value < bound),
        "Gt" => compare(wanted, found, |bound, value| value > bound),
        _ => false,
    }
}

/// True if one of `tolerations` lets a pod stand `taint`.
pub fn is_tolerated(tolerations: &[Toleration], taint: &Taint) -> bool {
    tolerations.iter().any(|toleration| tolerates(toleration, taint))
}

/// The first of `taints`, among those `of_interest`, that no toleration covers.
pub fn find_untolerated<'t>(
    taints: &'t [Taint],
    tolerations: &[Toleration],
    of_interest: impl Fn(&Taint) -> bool,
) -> Option<&'t Taint> {
    taints.iter().find(|taint| of_interest(taint) && !is_tolerated(tolerations, taint))
}

/// True for the effects that keep a new pod off a node.
pub fn blocks_scheduling(taint: &Taint) -> bool {
    matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE)
}

fn compare(bound: &str, value: &str, holds: fn(i64, i64) -> bool) -> bool {
    match (decimal(bound), decimal(value)) {
        (Some(bound), Some(value)) => holds(bound, value),
        _ => false,
    }
}

/// A decimal integer without plus sign or leading zeros.
pub(crate) fn decimal(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits == "0" && !text.starts_with('-') || digits.starts_with(|c: char| ('1'..='9').contains(&c));
    if plain { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    fn check(toleration: Value, taint: Value, expect: bool) {
        let result = tolerates(&from_value(toleration.clone()).unwrap(), &from_value(taint.clone()).unwrap());
        assert_eq!(result, expect, "{toleration} {taint}");
    }

    #[test]
    fn keys_values_and_effects() {
        let taint = json!({"key": "a", "value": "1", "effect": "NoSchedule"});
        check(json!({"key": "a", "value": "1"}), taint.clone(), true);
        check(json!({"key": "a", "value": "2"}), taint.clone(), false);
        check(json!({"key": "a", "operator": "Exists", "effect": "NoExecute"}), taint.clone(), false);
        check(json!({"operator": "Exists"}), taint.clone(), true);
        check(json!({"key": "b", "operator": "Exists"}), taint.clone(), false);
        check(json!({"key": "a", "operator": "Gt", "value": "0"}), taint.clone(), true);
        check(json!({"key": "a", "operator": "Lt", "value": "1"}), taint.clone(), false);
        check(json!({"key": "a", "operator": "Lt", "value": "07"}), taint, false);
    }

    #[test]
    fn the_first_untolerated_taint_is_named() {
        let taints: Vec<Taint> = from_value(json!([
            {"key": "soft", "effect": "PreferNoSchedule"}, {"key": "hard", "effect": "NoExecute"}
        ]))
        .unwrap();
        assert_eq!(find_untolerated(&taints, &[], blocks_scheduling).map(|t| t.key.as_str()), Some("hard"));
    }
}
