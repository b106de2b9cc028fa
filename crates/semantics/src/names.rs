//! Rules for names, labels, keys and paths: a text -> the list of what is wrong with it, in upstream's exact words.
//!
//! An empty list means valid. No regular expressions run here, though the messages quote the published ones. Rules that
//! take a whole object live in `object_meta` and `validate`.

const LABEL_FORMAT: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_FORMAT: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const KEY_FORMAT: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const SUBDOMAIN_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A rule for `metadata.name`. The flag is true for a prefix that gets a random end (`generateName`).
pub type NameRule = fn(&str, bool) -> Vec<String>;

/// Most kinds: a DNS-1123 subdomain.
pub fn subdomain_name(name: &str, prefix: bool) -> Vec<String> {
    dns1123_subdomain(&mask_dash(name, prefix))
}

/// Namespaces and the like: a DNS-1123 label.
pub fn label_name(name: &str, prefix: bool) -> Vec<String> {
    dns1123_label(&mask_dash(name, prefix))
}

/// RBAC objects and others that accept all that can stand between two slashes of a URL.
pub fn path_segment_name(name: &str, prefix: bool) -> Vec<String> {
    if prefix { path_segment_prefix(name) } else { path_segment(name) }
}

fn mask_dash(name: &str, prefix: bool) -> String {
    match name.strip_suffix('-') {
        Some(rest) if prefix && !rest.is_empty() => format!("{}a", &rest[..rest.len() - last_char_len(rest)]),
        _ => name.to_owned(),
    }
}

fn last_char_len(text: &str) -> usize {
    text.chars().next_back().map_or(0, char::len_utf8)
}

pub fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." => vec!["may not be '.'".to_owned()],
        ".." => vec!["may not be '..'".to_owned()],
        _ => path_segment_prefix(name),
    }
}

fn path_segment_prefix(name: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|c| name.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

pub fn dns1123_label(value: &str) -> Vec<String> {
    let mut found = max_len(value, LABEL_MAX);
    if !is_dns_label(value) {
        if is_dns_subdomain(value) {
            found.push("must not contain dots".to_owned());
        } else {
            found.push(regex_message(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
                LABEL_FORMAT,
                &["my-name", "123-abc"],
            ));
        }
    }
    found
}

pub fn dns1123_subdomain(value: &str) -> Vec<String> {
    let mut found = max_len(value, SUBDOMAIN_MAX);
    if !is_dns_subdomain(value) {
        found.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            SUBDOMAIN_FORMAT,
            &["example.com"],
        ));
    }
    found
}

/// A subdomain whose labels may hold underscores and start with one (DNS search domains).
pub fn dns1123_subdomain_with_underscore(value: &str) -> Vec<String> {
    let mut found = max_len(value, SUBDOMAIN_MAX);
    let label_ok = |label: &str| {
        let rest = label.strip_prefix('_').unwrap_or(label);
        let ends = |c: Option<char>| c.is_some_and(is_lower_alnum);
        ends(rest.chars().next())
            && ends(rest.chars().next_back())
            && rest.chars().all(|c| is_lower_alnum(c) || c == '-' || c == '_')
    };
    if !value.split('.').all(label_ok) {
        found.push(regex_message(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character",
            r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*",
            &["example.com"],
        ));
    }
    found
}

/// `*.` followed by a subdomain (wildcard hosts of an Ingress).
pub fn wildcard_subdomain(value: &str) -> Vec<String> {
    let mut found = max_len(value, SUBDOMAIN_MAX);
    if !value.strip_prefix("*.").is_some_and(is_dns_subdomain) {
        found.push(regex_message(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_FORMAT}"),
            &["*.example.com"],
        ));
    }
    found
}

pub fn dns1035_label(value: &str) -> Vec<String> {
    let mut found = max_len(value, LABEL_MAX);
    if !(is_dns_label(value) && value.starts_with(|c: char| c.is_ascii_lowercase())) {
        found.push(regex_message(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    found
}

/// A label key, annotation key, finalizer, taint key: `[prefix/]name`.
pub fn qualified_name(value: &str) -> Vec<String> {
    let parts: Vec<&str> = value.split('/').collect();
    let key_message = || {
        regex_message(
            "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            KEY_FORMAT,
            &["MyName", "my.name", "123-abc"],
        )
    };
    let mut found = Vec::new();
    let name = match parts.as_slice() {
        [name] => *name,
        [prefix, name] => {
            if prefix.is_empty() {
                found.push("prefix part must be non-empty".to_owned());
            } else {
                found.extend(dns1123_subdomain(prefix).into_iter().map(|m| format!("prefix part {m}")));
            }
            *name
        }
        _ => {
            return vec![format!(
                "a valid label key {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                key_message()
            )];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else {
        found.extend(max_bytes(name, LABEL_MAX).into_iter().map(|m| format!("name part {m}")));
    }
    if !is_key_part(name) {
        found.push(format!("name part {}", key_message()));
    }
    found
}

pub fn label_value(value: &str) -> Vec<String> {
    let mut found = max_bytes(value, LABEL_MAX);
    if !value.is_empty() && !is_key_part(value) {
        found.push(regex_message(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    found
}

pub fn env_var_name(value: &str) -> Vec<String> {
    let ok = !value.is_empty() && value.chars().all(|c| (' '..='~').contains(&c) && c != '=');
    if value.is_empty() {
        return vec!["environment variable name must be non-empty".to_owned()];
    }
    if ok {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A key of a ConfigMap or Secret, and so a file name.
pub fn config_key(value: &str) -> Vec<String> {
    let mut found = max_len(value, SUBDOMAIN_MAX);
    if value.is_empty() || !value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')) {
        found.push(regex_message(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => found.push("must not be '.'".to_owned()),
        ".." => found.push("must not be '..'".to_owned()),
        v if v.starts_with("..") => found.push("must not start with '..'".to_owned()),
        _ => {}
    }
    found
}

/// An IANA service name, as container ports use it.
pub fn port_name(value: &str) -> Vec<String> {
    let mut found = max_len(value, 15);
    if value.is_empty() || !value.chars().all(|c| is_lower_alnum(c) || c == '-') {
        found.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !value.chars().any(|c| c.is_ascii_lowercase()) {
        found.push("must contain at least one letter (a-z)".to_owned());
    }
    if value.contains("--") {
        found.push("must not contain consecutive hyphens".to_owned());
    }
    if value.starts_with('-') || value.ends_with('-') {
        found.push("must not begin or end with a hyphen".to_owned());
    }
    found
}

pub fn http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Vec::new();
    }
    vec![regex_message(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

pub fn percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_message(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65535)
}

pub fn in_range(value: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&value) {
        return Vec::new();
    }
    vec![format!("must be between {low} and {high}, inclusive")]
}

/// User and group ids.
pub fn user_id(id: i64) -> Vec<String> {
    in_range(id, 0, i64::from(i32::MAX))
}

/// An IPv4 or IPv6 address in any accepted spelling.
pub fn ip_address(value: &str) -> Vec<String> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Vec::new();
    }
    vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()]
}

/// `address/length`.
pub fn cidr(value: &str) -> Vec<String> {
    let ok = value.split_once('/').is_some_and(|(address, length)| {
        let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
        match (address.parse::<std::net::IpAddr>(), length.parse::<u8>()) {
            (Ok(std::net::IpAddr::V4(_)), Ok(n)) => digits && n <= 32,
            (Ok(std::net::IpAddr::V6(_)), Ok(n)) => digits && n <= 128,
            _ => false,
        }
    });
    if ok {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()]
}

/// True for a text that is one DNS-1123 label, whatever its length.
pub fn is_dns_label(value: &str) -> bool {
    value.chars().all(|c| is_lower_alnum(c) || c == '-')
        && value.starts_with(is_lower_alnum)
        && value.ends_with(is_lower_alnum)
}

fn is_dns_subdomain(value: &str) -> bool {
    value.split('.').all(is_dns_label)
}

fn is_key_part(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.starts_with(edge)
        && value.ends_with(edge)
        && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

fn is_lower_alnum(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn max_len(value: &str, max: usize) -> Vec<String> {
    if value.len() > max { vec![max_len_message(max)] } else { Vec::new() }
}

/// The same bound as [`max_len`], in the words of label keys and values.
fn max_bytes(value: &str, max: usize) -> Vec<String> {
    if value.len() > max { vec![format!("must be no more than {max} bytes")] } else { Vec::new() }
}

/// A finalizer of Kubernetes' own has a standard name or one of a domain; other APIs take any qualified name.
pub fn finalizer_name(value: &str) -> Vec<String> {
    if value.contains('/') || matches!(value, "kubernetes" | "orphan" | "foregroundDeletion") {
        return Vec::new();
    }
    vec!["name is neither a standard finalizer name nor is it fully qualified".to_owned()]
}

pub fn max_len_message(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn regex_message(message: &str, format: &str, examples: &[&str]) -> String {
    let examples = examples.iter().map(|e| format!("'{e}', ")).collect::<Vec<_>>().join(" or ");
    format!("{message} (e.g. {examples}regex used for validation is '{format}')")
}

/// A field manager's name holds only printable characters; the first that is not is named by position.
pub fn unprintable(value: &str) -> Option<String> {
    let (at, c) = value.char_indices().find(|(_, c)| c.is_control() || (c.is_whitespace() && *c != ' '))?;
    Some(format!("invalid character U+{:04X} (at position {at})", c as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: fn(&str) -> Vec<String>, good: &[&str], bad: &[&str]) {
        for value in good {
            assert_eq!(rule(value), Vec::<String>::new(), "{value}");
        }
        for value in bad {
            assert_ne!(rule(value), Vec::<String>::new(), "{value}");
        }
    }

    #[test]
    fn dns_names() {
        check(dns1123_label, &["a", "0-a", "a1"], &["", "A", "a.b", "-a", "a-", "a_b", &"a".repeat(64)]);
        check(dns1123_subdomain, &["a", "a.b-c.0"], &["", "a..b", ".a", "a.", "A.b", &"a".repeat(254)]);
        check(dns1035_label, &["a", "a-1"], &["1a", "a.b", ""]);
        check(wildcard_subdomain, &["*.a.b"], &["*", "a.b", "*.", "*.*.a"]);
        check(dns1123_subdomain_with_underscore, &["_tcp.a", "a_b"], &["__a", "a_"]);
    }

    #[test]
    fn keys_and_values() {
        check(
            qualified_name,
            &["simple", "1.2.3.4/5678", "example.com/Up_1", "requests.storage-foo"],
            &["a/b/c", "/a", "a/", "Example.com/a", "-a", "a%", &"a".repeat(64)],
        );
        check(label_value, &["", "a", "A_1.b"], &["-a", "a-", "a b", &"a".repeat(64)]);
        check(config_key, &["a", ".a", "A-_.b"], &["", ".", "..", "..a", "a/b"]);
        check(env_var_name, &["A", "a b", "9"], &["", "a=b", "ä"]);
        check(port_name, &["http", "a-1"], &["", "1", "-a", "a--b", "Http", &"a".repeat(16)]);
        check(percent, &["1%", "100%"], &["%", "1", "a%"]);
        check(cidr, &["10.0.0.0/8", "2001:db8::/64"], &["10.0.0.0", "10.0.0.0/33", "x/8", "10.0.0.0/+8"]);
    }

    #[test]
    fn generate_name_may_end_in_a_dash() {
        assert!(subdomain_name("pod-", true).is_empty());
        assert!(!subdomain_name("pod-", false).is_empty());
    }

    #[test]
    fn messages_quote_the_published_expressions() {
        assert_eq!(
            dns1123_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
    }
}
