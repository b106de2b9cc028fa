//! Kubernetes quantities: exact decimal amounts with an SI, binary or exponent suffix.
//!
//! Text -> [`Quantity`] -> canonical text, as upstream parses and prints them (API conventions, "Quantities").
//! Amounts are whole numbers of 10^-9; finer ones are rounded away from zero, and what exceeds 1.7 * 10^29 is capped.
//! A text that is canonical enough for upstream's fast path is kept and printed as it came (`1.500`, `+1`).

use std::cmp::Ordering;
use std::fmt;

/// The message of [`ParseError::Format`].
pub const FORMAT_WRONG: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

const NANO: i128 = 1_000_000_000;
/// Digits that upstream's fast path can hold.
const FAST_DIGITS: i32 = 18;

/// Why a text is no quantity; the messages are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{FORMAT_WRONG}")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The family of suffixes in which a quantity prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `n u m k M G T P E`
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`
    BinarySi,
    /// `e3`
    DecimalExponent,
}

/// An amount and the format in which it prints. Equality and order are of the amount alone.
#[derive(Debug, Clone, Default)]
pub struct Quantity {
    nano: i128,
    format: Format,
    /// The text as it came, when upstream would print it unchanged.
    text: Option<Box<str>>,
}

impl Quantity {
    /// Parses a quantity.
    pub fn parse(text: &str) -> Result<Quantity, ParseError> {
        let parts = split(text)?;
        let (base, exponent, format) = interpret(parts.suffix).ok_or(ParseError::Suffix)?;
        let digits = format!("{}{}", parts.whole, parts.fraction);
        let unscaled: Option<i128> = digits.parse().ok();
        let decimals = i32::try_from(parts.fraction.len()).map_err(|_| ParseError::Numeric)?;
        let magnitude = match base {
            2 => scale(unscaled, -decimals, 1i128 << exponent.clamp(0, 60)),
            _ => scale(unscaled, exponent.saturating_sub(decimals), 1),
        };
        let mut nano = magnitude;
        let mut printed_as = format;
        if format == Format::BinarySi {
            nano = nano.min(i128::from(i64::MAX) * NANO);
            if nano < NANO && nano > 0 {
                printed_as = Format::DecimalSi;
            }
        }
        let keep = kept_as_written(&parts, &digits, exponent, format);
        let nano = if parts.negative { -nano } else { nano };
        Ok(Quantity { nano, format: printed_as, text: keep.then(|| text.into()) })
    }

    /// A whole number of units.
    pub fn from_units(units: i64, format: Format) -> Quantity {
        Quantity { nano: i128::from(units) * NANO, format, text: None }
    }

    /// A number of thousandths, printed as `250m`.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nano: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi, text: None }
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// Units, rounded up, capped at the bounds of `i64`.
    pub fn value(&self) -> i64 {
        self.rounded_up(NANO)
    }

    /// Thousandths, rounded up, capped at the bounds of `i64`.
    pub fn milli_value(&self) -> i64 {
        self.rounded_up(NANO / 1000)
    }

    fn rounded_up(&self, unit: i128) -> i64 {
        let rounded = div_away_from_zero(self.nano, unit);
        rounded.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
    }

    /// Billionths, exact.
    pub fn nano(&self) -> i128 {
        self.nano
    }

    /// Nearest floating-point number of units.
    pub fn as_f64(&self) -> f64 {
        self.nano as f64 / NANO as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nano.signum() as i32
    }

    /// The sum, in this quantity's format (in the other's when this one is zero), as upstream adds.
    pub fn add(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: self.nano.saturating_add(other.nano), format, text: None }
    }

    /// The difference, in the same format as the sum.
    pub fn sub(&self, other: &Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: self.nano.saturating_sub(other.nano), format, text: None }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl std::str::FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Quantity::parse(text)
    }
}

/// Canonical: no fraction, the largest exponent that keeps the number whole.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(text) = &self.text {
            return f.write_str(text);
        }
        if self.nano == 0 {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.nano % NANO == 0 && self.nano.abs() >= 1024 * NANO;
        if binary {
            let (number, times) = strip(self.nano / NANO, 1024, 6);
            return write!(f, "{number}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][times]);
        }
        if self.format == Format::DecimalExponent {
            let (number, times) = strip(self.nano, 1000, usize::MAX);
            let exponent = times as i32 * 3 - 9;
            return if exponent == 0 { write!(f, "{number}") } else { write!(f, "{number}e{exponent}") };
        }
        let (number, times) = strip(self.nano, 1000, 9);
        write!(f, "{number}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][times])
    }
}

struct Parts<'a> {
    negative: bool,
    /// Without leading zeros; at least one digit.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Format);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let trimmed = unsigned.trim_start_matches('0');
    let whole_len = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (mut whole, mut rest) = trimmed.split_at(whole_len);
    if whole.is_empty() {
        whole = "0";
    }
    let mut fraction = "";
    if let Some(after) = rest.strip_prefix('.') {
        let len = after.bytes().take_while(u8::is_ascii_digit).count();
        (fraction, rest) = after.split_at(len);
    }
    let letters = rest.bytes().take_while(|b| b"eEinumkKMGTP".contains(b)).count();
    let tail = rest[letters..].strip_prefix(['-', '+']).unwrap_or(&rest[letters..]);
    if !tail.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseError::Format);
    }
    // No digit at all counts as zero, as upstream's scanner has it.
    Ok(Parts { negative: text.starts_with('-'), whole, fraction, suffix: rest })
}

/// Suffix -> base, exponent, format.
fn interpret(suffix: &str) -> Option<(i32, i32, Format)> {
    let decimal = |exponent| Some((10, exponent, Format::DecimalSi));
    let binary = |exponent| Some((2, exponent, Format::BinarySi));
    match suffix {
        "" => decimal(0),
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            Some((10, exponent, Format::DecimalExponent))
        }
    }
}

/// `unscaled * factor * 10^exponent` in nano units, rounded away from zero, capped.
fn scale(unscaled: Option<i128>, exponent: i32, factor: i128) -> i128 {
    let Some(amount) = unscaled.and_then(|amount| amount.checked_mul(factor)) else { return i128::MAX };
    if amount == 0 {
        return 0;
    }
    let shift = exponent.saturating_add(9);
    let power = 10i128.checked_pow(shift.unsigned_abs());
    match (shift >= 0, power) {
        (true, Some(power)) => amount.saturating_mul(power),
        (true, None) => i128::MAX,
        (false, Some(power)) => div_away_from_zero(amount, power),
        (false, None) => 1,
    }
}

fn div_away_from_zero(amount: i128, unit: i128) -> i128 {
    let quotient = amount / unit;
    if amount % unit == 0 { quotient } else { quotient + amount.signum() }
}

/// Takes factors out of a number, at most `limit` of them.
fn strip(mut number: i128, factor: i128, limit: usize) -> (i128, usize) {
    let mut times = 0;
    while number != 0 && number % factor == 0 && times < limit {
        number /= factor;
        times += 1;
    }
    (number, times)
}

/// Whether upstream's fast path keeps the text for printing.
fn kept_as_written(parts: &Parts<'_>, digits: &str, exponent: i32, format: Format) -> bool {
    let len = digits.len() as i32;
    let Ok(number) = digits.parse::<i64>() else { return false };
    if format == Format::BinarySi {
        let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
        return parts.fraction.is_empty() && precision >= 0 && number & 7 != 0;
    }
    let scale = exponent.saturating_sub(parts.fraction.len() as i32);
    len <= FAST_DIGITS && scale >= -9 && scale % 3 == 0 && !digits.ends_with("000") && !digits.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &str, expect: &str) {
        let printed = Quantity::parse(input).map_or_else(|e| format!("error: {e}"), |q| q.to_string());
        assert_eq!(printed, expect, "{input}");
    }

    #[test]
    fn canonical_form() {
        for (input, expect) in [
            ("0", "0"),
            ("1", "1"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("0.1", "100m"),
            ("100m", "100m"),
            ("128974848", "128974848"),
            ("129e6", "129e6"),
            ("129M", "129M"),
            ("123Mi", "123Mi"),
            ("1024Ki", "1Mi"),
            ("1Gi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("1000Ki", "1000Ki"),
            ("0.5Ki", "512"),
            ("1000k", "1M"),
            ("1000", "1k"),
            ("-1.5", "-1500m"),
            ("1e3", "1e3"),
            ("1000e0", "1e3"),
            ("12.3n", "13n"),
            ("0.1n", "1n"),
            ("100Ei", "9223372036854775807"),
            ("1E", "1E"),
            ("+1", "+1"),
            ("1.500", "1.500"),
            ("2000m", "2"),
            (".5", "500m"),
            ("5.", "5."),
            ("0.000", "0"),
            ("1.1Ki", "1126400m"),
        ] {
            check(input, expect);
        }
    }

    #[test]
    fn errors_are_upstreams() {
        check("", &format!("error: {FORMAT_WRONG}"));
        check("1.1.1", &format!("error: {FORMAT_WRONG}"));
        check("1 Gi", &format!("error: {FORMAT_WRONG}"));
        check("1i", "error: unable to parse quantity's suffix");
        check("1mi", "error: unable to parse quantity's suffix");
    }

    #[test]
    fn values_round_up() {
        assert_eq!(Quantity::parse("1500m").unwrap().value(), 2);
        assert_eq!(Quantity::parse("0.1m").unwrap().milli_value(), 1);
        assert_eq!(Quantity::parse("2Ki").unwrap().value(), 2048);
        assert_eq!(Quantity::parse("100E").unwrap().milli_value(), i64::MAX);
    }

    #[test]
    fn sums_keep_the_first_format() {
        let sum = Quantity::parse("1Gi").unwrap().add(&Quantity::parse("1G").unwrap());
        assert_eq!(sum.to_string(), "2073741824");
        assert_eq!(Quantity::default().add(&Quantity::parse("1Gi").unwrap()).to_string(), "1Gi");
        assert!(Quantity::parse("1Gi").unwrap() > Quantity::parse("1G").unwrap());
    }
}
