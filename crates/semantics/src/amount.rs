//! Exact amounts: the quantity texts of the API as integers, for adding and comparing.
//!
//! Input: a `Quantity`. Output: billionths as `i128`, rounded up beyond that; unparseable text is `None`. Texts are made
//! canonical elsewhere (`canonical`).

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const NANO: i128 = 1_000_000_000;

/// The amount in billionths.
pub fn nanos(quantity: &Quantity) -> Option<i128> {
    parse_nanos(&quantity.0)
}

/// The amount in billionths; 0 if it cannot be parsed (validation and decoding have refused such text before).
pub fn nanos_or_zero(quantity: &Quantity) -> i128 {
    nanos(quantity).unwrap_or(0)
}

/// The amount in thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    saturate(div_up(nanos_or_zero(quantity), NANO / 1000))
}

/// `a / b` rounded up (towards positive infinity), `b` positive.
pub(crate) fn div_up(a: i128, b: i128) -> i128 {
    a.div_euclid(b) + i128::from(a.rem_euclid(b) != 0)
}

pub(crate) fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn parse_nanos(text: &str) -> Option<i128> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, suffix) = text.split_at(split);
    let (negative, digits) = match number.as_bytes().first()? {
        b'-' => (true, &number[1..]),
        b'+' => (false, &number[1..]),
        _ => (false, number),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() + fraction.len() == 0 || whole.contains(['-', '+']) || fraction.contains(['-', '+', '.']) {
        return None;
    }
    let magnitude = scale(whole, fraction, suffix)?;
    Some(if negative { -magnitude } else { magnitude })
}

fn scale(whole: &str, fraction: &str, suffix: &str) -> Option<i128> {
    let mantissa: i128 = if whole.len() + fraction.len() > 30 {
        return None;
    } else {
        format!("0{whole}{fraction}").parse().ok()?
    };
    let decimals = i32::try_from(fraction.len()).ok()?;
    match suffix {
        "Ki" => binary(mantissa, 10, decimals),
        "Mi" => binary(mantissa, 20, decimals),
        "Gi" => binary(mantissa, 30, decimals),
        "Ti" => binary(mantissa, 40, decimals),
        "Pi" => binary(mantissa, 50, decimals),
        "Ei" => binary(mantissa, 60, decimals),
        _ => decimal(mantissa, decimal_exponent(suffix)? - decimals + 9),
    }
}

fn decimal_exponent(suffix: &str) -> Option<i32> {
    Some(match suffix {
        "" => 0,
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => suffix.strip_prefix(['e', 'E'])?.parse().ok()?,
    })
}

fn decimal(mantissa: i128, exponent: i32) -> Option<i128> {
    let power = 10i128.checked_pow(exponent.unsigned_abs());
    if exponent >= 0 {
        mantissa.checked_mul(power?)
    } else {
        Some(power.map_or(i128::from(mantissa != 0), |power| div_up(mantissa, power)))
    }
}

fn binary(mantissa: i128, bits: u32, decimals: i32) -> Option<i128> {
    let scaled = mantissa.checked_mul(1i128 << bits)?.checked_mul(NANO)?;
    decimal(scaled, -decimals)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<i128>) {
        assert_eq!(nanos(&Quantity(text.to_owned())), expect, "{text}");
    }

    #[test]
    fn texts_become_billionths() {
        check("1", Some(NANO));
        check("100m", Some(NANO / 10));
        check("1.5", Some(NANO * 3 / 2));
        check("1Ki", Some(1024 * NANO));
        check("0.5Gi", Some((1 << 29) * NANO));
        check("1e3", Some(1000 * NANO));
        check("12E", Some(12_000_000_000_000_000_000 * NANO));
        check("-1", Some(-NANO));
        check("1n", Some(1));
        check("0.1n", Some(1));
        check("", None);
        check("x", None);
        check("1.2.3", None);
        check("1Zi", None);
    }
}
