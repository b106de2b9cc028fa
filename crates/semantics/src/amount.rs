//! Exact amounts: the quantities of k8s-openapi structs as integers, for adding and comparing.
//!
//! Input: a `Quantity` text. Output: billionths as `i128`. Parsing and printing are `api::quantity`'s.

use api::quantity::{Format, Quantity as Amount};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const MILLI_IN_NANOS: i128 = 1_000_000;

/// The amount in billionths; `None` if the text is no quantity.
pub fn nanos(quantity: &Quantity) -> Option<i128> {
    Amount::parse(&quantity.0).ok().map(|amount| amount.nano())
}

/// The amount in billionths; 0 if it cannot be parsed (validation and decoding have refused such text before).
pub fn nanos_or_zero(quantity: &Quantity) -> i128 {
    nanos(quantity).unwrap_or(0)
}

/// The amount in thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    saturate(div_up(nanos_or_zero(quantity), MILLI_IN_NANOS))
}

/// The amount in whole units, rounded up.
pub fn whole(quantity: &Quantity) -> i64 {
    saturate(div_up(nanos_or_zero(quantity), 1_000_000_000))
}

/// Rounds up to thousandths and makes the text canonical. Unparseable text stays for validation to refuse.
pub fn round_up_to_milli(quantity: &mut Quantity) {
    let Ok(amount) = Amount::parse(&quantity.0) else { return };
    quantity.0 = if amount.nano() % MILLI_IN_NANOS == 0 {
        amount.to_string()
    } else {
        Amount::from_milli(amount.milli_value()).to_string()
    };
}

/// The quantity of `nanos` billionths of `resource`: memory-like resources in binary units.
pub fn quantity_of(resource: &str, nanos: i128) -> Quantity {
    let binary = resource == "memory" || resource.contains("storage") || crate::resources::is_huge_page(resource);
    let whole = nanos % 1_000_000_000 == 0;
    let amount = match (binary, whole) {
        (true, true) => Amount::from_units(saturate(nanos / 1_000_000_000), Format::BinarySi),
        (false, true) => Amount::from_units(saturate(nanos / 1_000_000_000), Format::DecimalSi),
        _ => Amount::from_milli(saturate(div_up(nanos, MILLI_IN_NANOS))),
    };
    Quantity(amount.to_string())
}

/// `a / b` rounded up (towards positive infinity), `b` positive.
pub(crate) fn div_up(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

pub(crate) fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        let mut quantity = Quantity(input.to_owned());
        round_up_to_milli(&mut quantity);
        assert_eq!(quantity.0, expect, "{input}");
    }

    #[test]
    fn lists_hold_canonical_thousandths() {
        check("1000m", "1");
        check("0.5", "500m");
        check("1024Mi", "1Gi");
        check("1500Mi", "1500Mi");
        check("0.1m", "1m");
        check("0", "0");
        check("1.5Gi", "1536Mi");
        check("x", "x");
    }

    #[test]
    fn integers_round_up() {
        let check = |text: &str, expect: (i64, i64)| {
            let quantity = Quantity(text.to_owned());
            assert_eq!((milli(&quantity), whole(&quantity)), expect, "{text}");
        };
        check("250m", (250, 1));
        check("1.5", (1500, 2));
        check("64Mi", (64 * 1024 * 1024 * 1000, 64 * 1024 * 1024));
        check("1e3", (1_000_000, 1000));
        check("100u", (1, 1));
        check("x", (0, 0));
    }

    #[test]
    fn sums_print_in_the_resources_own_units() {
        assert_eq!(quantity_of("memory", 1024 * 1024 * 1_000_000_000).0, "1Mi");
        assert_eq!(quantity_of("cpu", 1_500_000_000).0, "1500m");
        assert_eq!(quantity_of("cpu", 2_000_000_000).0, "2");
    }
}
