//! Which kernel parameters a pod may set: those that a namespace of its own holds and that touch no other pod. Pure.
//!
//! Upstream's list of safe ones (1.37, `pkg/kubelet/sysctl`). It leaves out what a kernel older than 4.15 does not keep apart; no
//! such kernel has what the node's network needs.

use std::borrow::Cow;

use k8s_openapi::api::core::v1::PodSpec;

/// In the namespace for interprocess communication; all others are in the network's.
const SAFE_IPC: [&str; 1] = ["kernel.shm_rmid_forced"];
const SAFE_NET: [&str; 13] = [
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];

/// The name with dots between its parts. As `sysctl` takes it, a name may have slashes there, and dots within its parts.
pub fn dotted(name: &str) -> Cow<'_, str> {
    if name.find(['.', '/']).is_none_or(|at| name[at..].starts_with('.')) {
        return name.into();
    }
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect::<String>().into()
}

/// Why the pod may not set what it sets, in upstream's words.
pub fn find_forbidden(spec: &PodSpec) -> Option<String> {
    let sysctls = spec.security_context.as_ref().and_then(|context| context.sysctls.as_deref()).unwrap_or_default();
    let (host_net, host_ipc) = (spec.host_network == Some(true), spec.host_ipc == Some(true));
    sysctls.iter().map(|sysctl| dotted(&sysctl.name)).find_map(|name| {
        let (is_net, is_ipc) = (SAFE_NET.contains(&&*name), SAFE_IPC.contains(&&*name));
        if is_net && host_net {
            Some(format!("forbidden sysctl: {name:?} not allowed with host Net enabled"))
        } else if is_ipc && host_ipc {
            Some(format!("forbidden sysctl: {name:?} not allowed with host IPC enabled"))
        } else {
            (!is_net && !is_ipc).then(|| format!("forbidden sysctl: {name:?} not allowlisted"))
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn safe_ones_pass_where_the_namespace_is_the_pods_own() {
        let check = |names: &[&str], host: &str, expect: Option<&str>| {
            let sysctls: Vec<_> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
            let mut spec = json!({"containers": [], "securityContext": {"sysctls": sysctls}});
            spec[host] = json!(true);
            assert_eq!(find_forbidden(&from_value(spec).unwrap()).as_deref(), expect, "{names:?} {host}");
        };
        check(&[], "hostNetwork", None);
        check(&["kernel.shm_rmid_forced", "net/ipv4/tcp_rmem"], "hostPID", None);
        check(&["kernel.shm_rmid_forced"], "hostNetwork", None);
        let net = "forbidden sysctl: \"net.ipv4.tcp_rmem\" not allowed with host Net enabled";
        check(&["net.ipv4.tcp_rmem"], "hostNetwork", Some(net));
        let ipc = "forbidden sysctl: \"kernel.shm_rmid_forced\" not allowed with host IPC enabled";
        check(&["kernel.shm_rmid_forced"], "hostIPC", Some(ipc));
        let unsafe_one = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        check(&["net.ipv4.tcp_rmem", "kernel.msgmax"], "hostPID", Some(unsafe_one));
    }

    #[test]
    fn slashes_become_dots() {
        let check = |name: &str, expect: &str| assert_eq!(dotted(name), expect);
        check("net.ipv4.conf.eth0/1.mtu", "net.ipv4.conf.eth0/1.mtu");
        check("net/ipv4/conf/eth0.1/mtu", "net.ipv4.conf.eth0/1.mtu");
        check("kernel", "kernel");
    }
}
