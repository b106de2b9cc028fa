//! Container ports that say the same twice, or nearly so.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ContainerPort;

use crate::defaults::text;
use crate::field::{Path, quote};

/// `ports` with their paths, all containers of a pod together.
pub(super) fn port_warnings(ports: &[(Path, &ContainerPort)]) -> Vec<String> {
    let mut found = Vec::new();
    for (index, (path, port)) in ports.iter().enumerate() {
        if !text(&port.host_ip).is_empty() && host_port(port) == 0 {
            found.push(format!("{path}: hostIP set without hostPort: {}", printed(port)));
        }
        let same = |other: &ContainerPort| {
            other.container_port == port.container_port && text(&other.protocol) == text(&port.protocol)
        };
        for (other_path, other) in ports[..index].iter().filter(|(_, other)| same(other)) {
            if let Some(relation) = relation(port, other) {
                found.push(format!("{path}: {relation} port definition with {other_path}"));
            }
        }
    }
    found.extend(name_warnings(ports));
    found
}

/// How two definitions of one port are in each other's way.
fn relation(port: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let (ip, other_ip) = (text(&port.host_ip), text(&other.host_ip));
    if ip == other_ip && host_port(port) == host_port(other) {
        Some("duplicate")
    } else if host_port(port) == 0 || host_port(other) == 0 {
        Some("overlapping")
    } else if host_port(port) == host_port(other) && ip.is_empty() != other_ip.is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

fn name_warnings(ports: &[(Path, &ContainerPort)]) -> Vec<String> {
    let mut first: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut found = Vec::new();
    for (path, port) in ports {
        let name = text(&port.name);
        match first.get(name) {
            _ if name.is_empty() => {}
            Some(other) => found.push(format!(
                "{path}: duplicate port name {} with {other}, services and probes that select ports by name will use {other}",
                quote(name)
            )),
            None => {
                first.insert(name, path);
            }
        }
    }
    found
}

fn host_port(port: &ContainerPort) -> i32 {
    port.host_port.unwrap_or(0)
}

fn printed(port: &ContainerPort) -> String {
    format!(
        "{{Name:{} HostPort:{} ContainerPort:{} Protocol:{} HostIP:{}}}",
        text(&port.name),
        host_port(port),
        port.container_port,
        text(&port.protocol),
        text(&port.host_ip)
    )
}
