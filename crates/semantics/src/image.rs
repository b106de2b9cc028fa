//! References to container images: `[domain[:port]/]path[:tag][@digest]`.
//!
//! Input: what the user wrote. Output: its tag and digest, or nothing where it is no reference. The grammar is the
//! distribution project's, with its rule for what is a domain: the first part, if it has a dot, a colon or a capital
//! letter, or is `localhost`.

const PATH_BYTES_MAX: usize = 255;
const TAG_LETTERS_MAX: usize = 128;
/// A name that could be taken for the id of an image is none.
const ID_LETTERS: usize = 64;

/// The ends of a valid reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends<'a> {
    pub tag: Option<&'a str>,
    pub digest: Option<&'a str>,
}

/// `None` if `image` is no reference.
pub fn parse_reference(image: &str) -> Option<Ends<'_>> {
    if image.len() == ID_LETTERS && image.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
        return None;
    }
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match name[slash..].find(':') {
        Some(at) => (&name[..slash + at], Some(&name[slash + at + 1..])),
        None => (name, None),
    };
    (is_name(name) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)).then_some(Ends { tag, digest })
}

/// Adds `:latest` if there is neither tag nor digest. The error is upstream's text.
pub fn apply_default_tag(image: &str) -> Result<String, String> {
    match parse_reference(image) {
        None => Err(format!("couldn't parse image name \"{image}\": invalid reference format")),
        Some(Ends { tag: None, digest: None }) => Ok(format!("{image}:latest")),
        Some(_) => Ok(image.to_owned()),
    }
}

/// What to do where no pull policy is given: `Always` for the tag `latest`, also where neither tag nor digest is given.
pub fn default_pull_policy(image: &str) -> &'static str {
    match parse_reference(image) {
        Some(Ends { tag: Some("latest"), .. } | Ends { tag: None, digest: None }) => "Always",
        _ => "IfNotPresent",
    }
}

/// The registry of a name, as credentials are keyed: `docker.io` where none is written.
pub fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains('.') || host.contains(':') || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn is_name(name: &str) -> bool {
    let domain = name.split_once('/').filter(|(first, _)| is_domain_like(first));
    match domain {
        // What looks like a domain and isn't one may still be the first part of a path.
        Some((domain, path)) => is_path(path) && (is_domain(domain) || is_path(name)),
        None => is_path(name),
    }
}

fn is_domain_like(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(char::is_uppercase)
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => !address.is_empty() && address.chars().all(|c| c.is_ascii_hexdigit() || c == ':'),
        None => host.split('.').all(is_host_part),
    };
    is_host && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

fn is_host_part(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    part.starts_with(alphanumeric) && part.ends_with(alphanumeric) && part.chars().all(|c| alphanumeric(c) || c == '-')
}

fn is_path(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX && path.split('/').all(is_path_part)
}

/// Lower-case letters and digits, with single dots, one or two underscores, or any number of dashes between them.
fn is_path_part(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
    part.starts_with(alphanumeric) && part.ends_with(alphanumeric) && part.split(alphanumeric).all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= TAG_LETTERS_MAX && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

/// One of the three algorithms, and as many hexadecimal digits as it makes.
fn is_digest(digest: &str) -> bool {
    let Some((algorithm, digits)) = digest.split_once(':') else { return false };
    let count = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    digits.len() == count && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |image: &str, expect: Option<&str>| {
            assert_eq!(apply_default_tag(image).ok().as_deref(), expect, "{image}");
        };
        check("busybox", Some("busybox:latest"));
        check("localhost:5000/a/b", Some("localhost:5000/a/b:latest"));
        check("registry.k8s.io/e2e-test-images/agnhost:2.53", Some("registry.k8s.io/e2e-test-images/agnhost:2.53"));
        check("HOST/a--b__c.d", Some("HOST/a--b__c.d:latest"));
        check("[::1]:5000/a:1", Some("[::1]:5000/a:1"));
        check("x_y.z/a:1", Some("x_y.z/a:1"));
        for bad in ["", "Invalid!Name", "UPPER", "a:b:c", "a//b", "/a", "a/", "a..b", "a.-b", "a___b", "-a", "x.y:/a"] {
            check(bad, None);
        }
        check(&"f".repeat(64), None);
        check(&"x".repeat(256), None);
        let digest = format!("a@sha256:{}", "0".repeat(64));
        check(&digest, Some(&digest));
        check("a@sha256:00", None);
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        let check = |image: &str, expect: &str| assert_eq!(default_pull_policy(image), expect, "{image}");
        let digest = format!("sha256:{}", "a".repeat(64));
        check("nginx", "Always");
        check("nginx:latest", "Always");
        check("nginx:1.2", "IfNotPresent");
        check("host:5000/nginx", "Always");
        check("host:5000/nginx:1", "IfNotPresent");
        check(&format!("nginx@{digest}"), "IfNotPresent");
        check(&format!("nginx:latest@{digest}"), "Always");
        check("nginx:latest@sha256:abc", "IfNotPresent");
        check("Nginx", "IfNotPresent");
        check("", "IfNotPresent");
    }
}
