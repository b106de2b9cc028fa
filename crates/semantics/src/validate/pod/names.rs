//! Names in a pod spec: host names, DNS, references to other objects.

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};
use serde_json::json;

use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::{dns1123_label, dns1123_subdomain, dns1123_subdomain_with_underscore, ip_address, subdomain_name};

const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
const SEARCH_LETTERS_MAX: usize = 2048;
const HOSTNAME_OVERRIDE_LETTERS_MAX: usize = 64;

pub(super) fn validate_names(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (name, value) in [("hostname", text(&spec.hostname)), ("subdomain", text(&spec.subdomain))] {
        if !value.is_empty() {
            errors.invalid_each(&path.child(name), value, dns1123_label(value));
        }
    }
    let references = [
        ("serviceAccountName", text(&spec.service_account_name)),
        ("nodeName", text(&spec.node_name)),
        ("priorityClassName", text(&spec.priority_class_name)),
    ];
    for (name, value) in references.into_iter().filter(|(_, value)| !value.is_empty()) {
        errors.invalid_each(&path.child(name), value, subdomain_name(value, false));
    }
    if let Some(class) = &spec.runtime_class_name {
        errors.invalid_each(&path.child("runtimeClassName"), class, subdomain_name(class, false));
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = path.child("hostAliases").index(index);
        errors.invalid_each(&path.child("ip"), &alias.ip, ip_address(&alias.ip));
        for (at, name) in alias.hostnames.iter().flatten().enumerate() {
            errors.invalid_each(&path.child("hostnames").index(at), name, dns1123_subdomain(name));
        }
    }
}

pub(super) fn validate_hostname_override(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let Some(name) = &spec.hostname_override else { return };
    let path = path.child("hostnameOverride");
    for (field, set) in [("setHostnameAsFQDN", spec.set_hostname_as_fqdn), ("hostNetwork", spec.host_network)] {
        if set == Some(true) {
            errors.forbidden(path.clone(), format!("may not be specified when {field} is true"));
        }
    }
    if name.len() > HOSTNAME_OVERRIDE_LETTERS_MAX {
        errors.too_long(path.clone(), HOSTNAME_OVERRIDE_LETTERS_MAX);
    }
    errors.invalid_each(&path, name, dns1123_subdomain(name));
}

pub(super) fn validate_dns(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let path = path.child("dnsConfig");
    let servers = spec.dns_config.as_ref().and_then(|c| c.nameservers.as_ref()).map_or(0, Vec::len);
    if text(&spec.dns_policy) == "None" {
        if spec.dns_config.is_none() {
            return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers == 0 {
            let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
            return errors.required(path.child("nameservers"), detail);
        }
    }
    if let Some(config) = &spec.dns_config {
        validate_config(config, &path, errors);
    }
}

fn validate_config(config: &PodDNSConfig, path: &Path, errors: &mut Errors) {
    let servers = config.nameservers.as_deref().unwrap_or_default();
    let servers_path = path.child("nameservers");
    if servers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.invalid(servers_path.clone(), json!(servers), detail);
    }
    for (index, server) in servers.iter().enumerate() {
        errors.invalid_each(&servers_path.index(index), server, ip_address(server));
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let path_of = path.child("searches");
    if searches.len() > SEARCHES_MAX {
        let detail = format!("must not have more than {SEARCHES_MAX} search paths");
        errors.invalid(path_of.clone(), json!(searches), detail);
    }
    if searches.join(" ").len() > SEARCH_LETTERS_MAX {
        let detail =
            format!("must not have more than {SEARCH_LETTERS_MAX} characters (including spaces) in the search list");
        errors.invalid(path_of.clone(), json!(searches), detail);
    }
    for (index, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.invalid_each(&path_of.index(index), search, dns1123_subdomain_with_underscore(search));
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        if text(&option.name).is_empty() {
            errors.required(path.child("options").index(index), "must not be empty");
        }
    }
}
