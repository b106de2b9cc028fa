//! Canonical quantity texts: an amount -> the one text the API writes for it.
//!
//! Built on `amount`; the format (binary, decimal, exponent) of the text is kept where there is one.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::amount::{div_up, nanos};

const MILLI_IN_NANOS: i128 = 1_000_000;

/// Rounds up to thousandths and makes the text canonical. Unparseable text stays for validation to refuse.
pub fn round_up_to_milli(quantity: &mut Quantity) {
    if let Some(value) = nanos(quantity) {
        let rounded = div_up(value, MILLI_IN_NANOS) * MILLI_IN_NANOS;
        quantity.0 = text(rounded, is_binary(&quantity.0));
    }
}

/// The quantity of `nanos` billionths of `resource`: memory-like resources in binary units.
pub fn quantity_of(resource: &str, nanos: i128) -> Quantity {
    let binary = resource == "memory" || resource.contains("storage") || crate::resources::is_huge_page(resource);
    Quantity(text(nanos, binary))
}

fn is_binary(text: &str) -> bool {
    text.ends_with('i')
}

/// Canonical text: the largest suffix that leaves an integer.
fn text(nanos: i128, binary: bool) -> String {
    let whole = nanos % 1_000_000_000 == 0;
    if binary && whole {
        let mut value = nanos / 1_000_000_000;
        let mut at = 0;
        const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        if value.abs() < 1024 {
            return value.to_string();
        }
        while value % 1024 == 0 && at + 1 < SUFFIXES.len() {
            value /= 1024;
            at += 1;
        }
        return format!("{value}{}", SUFFIXES[at]);
    }
    const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
    let mut value = nanos;
    let mut at = 0;
    if value == 0 {
        return "0".to_owned();
    }
    while value % 1000 == 0 && at + 1 < SUFFIXES.len() {
        value /= 1000;
        at += 1;
    }
    format!("{value}{}", SUFFIXES[at])
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
    fn texts_are_canonical() {
        check("1000m", "1");
        check("0.5", "500m");
        check("1024Mi", "1Gi");
        check("1500Mi", "1500Mi");
        check("1000000", "1M");
        check("0.1m", "1m");
        check("0", "0");
        check("1.5Gi", "1536Mi");
    }
}
