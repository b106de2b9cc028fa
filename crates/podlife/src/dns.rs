//! A pod's resolv.conf. Input: dnsPolicy, dnsConfig, the host's resolv.conf, the cluster's DNS. Output: three lists.
//!
//! Invariant: never more than 3 servers and 32 search domains, the C library's bounds as upstream applies them.

use k8s_openapi::api::core::v1::Pod;

use crate::spec::{is_host_network, namespace, pod_spec};

const SERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

/// Reads the three directives that matter; the last `search` wins.
pub fn parse_resolv_conf(text: &str) -> Resolver {
    let mut resolver = Resolver::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => resolver.servers.extend(words.next().map(str::to_owned)),
            Some("search") => {
                resolver.searches =
                    words.map(|w| w.trim_end_matches('.').to_owned()).filter(|w| !w.is_empty()).collect()
            }
            Some("options") => resolver.options.extend(words.map(str::to_owned)),
            _ => {}
        }
    }
    resolver
}

/// The pod's resolver by its policy, with its dnsConfig merged in.
pub fn derive_resolver(pod: &Pod, host: &Resolver, cluster_dns: &[String], cluster_domain: &str) -> Resolver {
    let policy = pod_spec(pod).dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut resolver = match policy {
        "None" => Resolver::default(),
        "ClusterFirst" if is_host_network(pod) => host.clone(),
        "ClusterFirst" | "ClusterFirstWithHostNet" if !cluster_dns.is_empty() => {
            cluster_first(pod, host, cluster_dns, cluster_domain)
        }
        _ => host.clone(),
    };
    if let Some(config) = &pod_spec(pod).dns_config {
        append_new(&mut resolver.servers, config.nameservers.iter().flatten());
        append_new(&mut resolver.searches, config.searches.iter().flatten());
        for option in config.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            resolver.options.retain(|known| known.split(':').next() != Some(name));
            resolver
                .options
                .push(option.value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}:{value}")));
        }
    }
    resolver.servers.truncate(SERVERS_MAX);
    resolver.searches.truncate(SEARCHES_MAX);
    resolver
}

fn cluster_first(pod: &Pod, host: &Resolver, cluster_dns: &[String], domain: &str) -> Resolver {
    let mut searches = Vec::new();
    if !domain.is_empty() {
        searches = vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.to_owned()];
    }
    append_new(&mut searches, host.searches.iter());
    Resolver { servers: cluster_dns.to_vec(), searches, options: vec!["ndots:5".to_owned()] }
}

fn append_new<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for entry in more {
        if !list.contains(entry) {
            list.push(entry.clone());
        }
    }
}

/// `(hostname, domain)`: the domain is empty without a subdomain.
pub fn hostname_and_domain(pod: &Pod, cluster_domain: &str) -> (String, String) {
    let spec = pod_spec(pod);
    let name = crate::spec::name(pod);
    let hostname = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(name);
    // 63 is the kernel's bound on a host name that DNS can carry.
    let cut: String = hostname.chars().take(63).collect();
    let hostname = cut.trim_end_matches(['-', '.']).to_owned();
    let domain = match spec.subdomain.as_deref().filter(|s| !s.is_empty()) {
        Some(subdomain) => format!("{subdomain}.{}.svc.{cluster_domain}", namespace(pod)),
        None => String::new(),
    };
    (hostname, domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_first_lists_the_namespace_first() {
        let mut pod = Pod::default();
        pod.metadata.namespace = Some("ns".to_owned());
        let host = parse_resolv_conf("search corp.example\nnameserver 9.9.9.9\noptions edns0\n");
        let got = derive_resolver(&pod, &host, &["10.43.0.10".to_owned()], "cluster.local");
        assert_eq!(got.servers, ["10.43.0.10"]);
        assert_eq!(got.searches, ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"]);
        assert_eq!(got.options, ["ndots:5"]);
    }
}
