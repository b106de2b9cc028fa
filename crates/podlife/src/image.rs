//! Image names and pull decisions. Input: what the user wrote. Output: the name for the runtime, or why it is none.

/// What to do about an image, given its policy and whether it is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullDecision {
    UsePresent,
    Pull,
    /// Policy Never and not there.
    Refuse,
}

pub fn decide_pull(policy: &str, present: bool) -> PullDecision {
    match (policy, present) {
        ("Always", _) | ("IfNotPresent", false) => PullDecision::Pull,
        ("Never", false) => PullDecision::Refuse,
        _ => PullDecision::UsePresent,
    }
}

/// The policy where the API left it out: Always for `latest` or no tag.
pub fn default_policy(image: &str) -> &'static str {
    match apply_default_tag(image) {
        Ok(name) if name.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// Adds `:latest` if there is neither tag nor digest. The error is upstream's text.
pub fn apply_default_tag(image: &str) -> Result<String, String> {
    if !is_valid(image) {
        return Err(format!("couldn't parse image name \"{image}\": invalid reference format"));
    }
    let last = image.rsplit('/').next().unwrap_or(image);
    Ok(if last.contains(':') || image.contains('@') { image.to_owned() } else { format!("{image}:latest") })
}

/// The grammar of the distribution project's references, without its length limits on hosts.
fn is_valid(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let (path, tag) = match name[slash..].find(':') {
        Some(at) => (&name[..slash + at], Some(&name[slash + at + 1..])),
        None => (name, None),
    };
    let mut parts = path.split('/').collect::<Vec<_>>();
    let is_host = |part: &str| part.contains('.') || part.contains(':') || part == "localhost";
    if parts.len() > 1 && is_host(parts[0]) {
        let host = parts.remove(0);
        if host.is_empty()
            || !host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
        {
            return false;
        }
    }
    !path.is_empty()
        && path.len() <= 255
        && parts.iter().all(|part| is_component(part))
        && tag.is_none_or(is_tag)
        && digest.is_none_or(is_digest)
}

fn is_component(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(part.chars().next())
        && edge(part.chars().last())
        && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
        && !part.contains("..")
        && !part.contains("___")
}

fn is_tag(tag: &str) -> bool {
    let first = tag.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    first && tag.len() <= 128 && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
    })
}

/// The registry of a name, as credentials are keyed: `docker.io` where none is written.
pub fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains('.') || host.contains(':') || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(image: &str, expect: Option<&str>) {
        assert_eq!(apply_default_tag(image).ok().as_deref(), expect, "{image}");
    }

    #[test]
    fn names() {
        check("busybox", Some("busybox:latest"));
        check("localhost:5000/a/b", Some("localhost:5000/a/b:latest"));
        check("registry.k8s.io/e2e-test-images/agnhost:2.53", Some("registry.k8s.io/e2e-test-images/agnhost:2.53"));
        check("Invalid!Name", None);
        check("UPPER", None);
        check("a:b:c", None);
        check("", None);
        check(
            "a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            Some("a@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
        );
    }

    #[test]
    fn pulls() {
        assert_eq!(decide_pull("Always", true), PullDecision::Pull);
        assert_eq!(decide_pull("IfNotPresent", true), PullDecision::UsePresent);
        assert_eq!(decide_pull("Never", false), PullDecision::Refuse);
        assert_eq!(default_policy("a"), "Always");
        assert_eq!(default_policy("a:1"), "IfNotPresent");
    }
}
