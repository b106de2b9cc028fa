//! The /etc/hosts that the kubelet manages for a pod. Input: addresses, names, aliases. Output: the file's text.

use k8s_openapi::api::core::v1::{HostAlias, Pod};

use crate::spec::pod_spec;

/// Upstream's first line, which users look for.
const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST: &str = "# Kubernetes-managed hosts file (host network).\n";

/// For a pod with a network of its own.
pub fn derive_hosts_file(pod: &Pod, pod_ips: &[String], hostname: &str, domain: &str) -> String {
    let mut text = String::from(HEADER);
    text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n");
    text.push_str("fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n");
    for ip in pod_ips {
        if domain.is_empty() {
            text.push_str(&format!("{ip}\t{hostname}\n"));
        } else {
            text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n"));
        }
    }
    text.push_str(&alias_lines(aliases(pod)));
    text
}

/// For a pod in the host's network: the host's file and the aliases.
pub fn derive_host_network_hosts_file(pod: &Pod, host_file: &str) -> String {
    format!("{HEADER_HOST}{host_file}{}", alias_lines(aliases(pod)))
}

fn aliases(pod: &Pod) -> &[HostAlias] {
    pod_spec(pod).host_aliases.as_deref().unwrap_or_default()
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n# Entries added by HostAliases.\n");
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.clone().unwrap_or_default().join("\t")));
    }
    text
}
