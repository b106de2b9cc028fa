//! Numbers as the API writes them: zero is left out where the field is optional, and percentages of a whole.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// None for 0, as fields that are omitted when empty come back.
pub fn nonzero<N: Default + PartialEq>(number: N) -> Option<N> {
    (number != N::default()).then_some(number)
}

/// A number or a percentage of `total`, rounded up or down; 0 for what is neither.
pub fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    match value {
        None => 0,
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let Some(percent) = text.strip_suffix('%').and_then(|number| number.parse::<i64>().ok()) else { return 0 };
            let product = percent * i64::from(total);
            let quotient = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(quotient).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(scaled(Some(&quarter), 10, true), 3);
        assert_eq!(scaled(Some(&quarter), 10, false), 2);
        assert_eq!(scaled(Some(&IntOrString::Int(4)), 10, false), 4);
        assert_eq!(scaled(None, 10, true), 0);
    }
}
