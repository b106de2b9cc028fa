//! Names of signers: `domain/path`.

use crate::field::{Errors, Path};
use crate::names::{dns1123_label, dns1123_subdomain};

const DOMAIN_BYTES_MAX: usize = 253;
/// A path may hold a namespace and a name, with a dot between.
const NAME_BYTES_MAX: usize = DOMAIN_BYTES_MAX + 1 + 253 + 63 + 1;

pub(crate) fn validate_signer_name(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path.clone(), "");
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.invalid(path.clone(), name, detail);
    };
    if domain.len() > DOMAIN_BYTES_MAX {
        errors.too_long(path.clone(), DOMAIN_BYTES_MAX);
    }
    validate_parts(domain, dns1123_label, path, errors);
    if !domain.contains('.') {
        errors.invalid(path.clone(), domain, "should be a domain with at least two segments separated by dots");
    }
    validate_parts(rest, dns1123_subdomain, path, errors);
    if name.len() > NAME_BYTES_MAX {
        errors.too_long(path.clone(), NAME_BYTES_MAX);
    }
}

/// Says what is wrong with the first bad part between dots.
fn validate_parts(text: &str, rule: fn(&str) -> Vec<String>, path: &Path, errors: &mut Errors) {
    let bad = text.split('.').map(|part| (part, rule(part))).find(|(_, problems)| !problems.is_empty());
    for (part, problem) in bad.iter().flat_map(|(part, problems)| problems.iter().map(move |problem| (part, problem))) {
        errors.invalid(path.clone(), text, format!("validating label \"{part}\": {problem}"));
    }
}

/// True if the signer is one of Kubernetes itself.
pub(crate) fn is_kubernetes_signer(name: &str) -> bool {
    let domain = name.split('/').next().unwrap_or(name);
    domain == "kubernetes.io" || domain.ends_with(".kubernetes.io")
}
