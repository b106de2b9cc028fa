//! IP addresses and ranges that are valid but not written as the rest of the world writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::field::{Path, quote};

/// The warning about an address that validation has accepted.
pub fn ip_warning(value: &str, path: &Path) -> Option<String> {
    let address = value.parse::<Ipv6Addr>().ok()?;
    let value = quote(value);
    if let Some(inner) = address.to_ipv4_mapped() {
        return Some(format!("{path}: non-standard IP address {value} is invalid: use {}", quote(&inner.to_string())));
    }
    let canonical = quote(&address.to_string());
    (canonical != value)
        .then(|| format!("{path}: IPv6 address {value} should be in RFC 5952 canonical format ({canonical})"))
}

/// The warnings about an `address/length` that validation has accepted.
pub fn cidr_warnings(value: &str, path: &Path) -> Vec<String> {
    let Some((address, length)) = value.split_once('/') else { return Vec::new() };
    let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u32>()) else { return Vec::new() };
    let (network, bits) = network_of(address, length);
    let range = format!("{network}/{length}");
    let quoted = quote(value);
    if network != address {
        let (range, single) = (quote(&range), quote(&format!("{address}/{bits}")));
        return vec![format!(
            "{path}: CIDR value {quoted} is ambiguous in this context (should be {range} or {single}?)"
        )];
    }
    if address.is_ipv6() && range != value {
        let range = quote(&range);
        return vec![format!("{path}: IPv6 CIDR value {quoted} should be in RFC 5952 canonical format ({range})")];
    }
    Vec::new()
}

/// The first address of the range, and how many bits an address of the family has.
fn network_of(address: IpAddr, length: u32) -> (IpAddr, u32) {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(Ipv4Addr::BITS.saturating_sub(length)).unwrap_or(0);
            (Ipv4Addr::from(u32::from(v4) & mask).into(), Ipv4Addr::BITS)
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(Ipv6Addr::BITS.saturating_sub(length)).unwrap_or(0);
            (Ipv6Addr::from(u128::from(v6) & mask).into(), Ipv6Addr::BITS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |value: &str, expect: Option<&str>| {
            assert_eq!(ip_warning(value, &Path::root("ip")).as_deref(), expect, "{value}");
        };
        check("10.0.0.1", None);
        check("2001:db8::1", None);
        check(
            "2001:DB8::1",
            Some(r#"ip: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")"#),
        );
        check("::ffff:1.2.3.4", Some(r#"ip: non-standard IP address "::ffff:1.2.3.4" is invalid: use "1.2.3.4""#));
    }

    #[test]
    fn ranges() {
        let check =
            |value: &str, expect: &[&str]| assert_eq!(cidr_warnings(value, &Path::root("c")), expect, "{value}");
        check("10.0.0.0/8", &[]);
        check("0.0.0.0/0", &[]);
        check("2001:db8::/64", &[]);
        check(
            "10.0.0.1/8",
            &[r#"c: CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)"#],
        );
        check(
            "2001:DB8::/64",
            &[r#"c: IPv6 CIDR value "2001:DB8::/64" should be in RFC 5952 canonical format ("2001:db8::/64")"#],
        );
    }
}
