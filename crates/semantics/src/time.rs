//! Times as the API writes them: RFC 3339 in UTC, in whole seconds (`Time`).

use jiff::Timestamp;

/// `2026-01-02T03:04:05Z`; fractions are cut.
pub fn rfc3339(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_are_cut() {
        let at = Timestamp::new(1_767_323_045, 6_999).unwrap();
        assert_eq!(rfc3339(at), "2026-01-02T03:04:05Z");
    }
}
