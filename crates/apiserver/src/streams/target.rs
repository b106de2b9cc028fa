//! Where a stream goes: a kubelet endpoint, a Pod's address or a Service's backend.
//!
//! Input: the call and the cluster's objects. Output: a [`Destination`] or upstream's error. Opens nothing.

use serde_json::Value;

use crate::chain::Target;
use crate::error::ApiError;
use crate::reader::Reader;
use crate::request::Query;
use crate::rest::Call;

/// A kubelet listens here unless its Node says otherwise.
const KUBELET_PORT: u16 = 10250;

/// Where a request is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub target: Target,
    /// Value of the `Host` header.
    pub host: String,
    pub path: String,
    /// Without the question mark.
    pub query: String,
}

impl Destination {
    /// What the server there may call itself in URLs: `host:port`, and `host` where the scheme implies the port.
    pub fn own_authorities(&self) -> Vec<String> {
        let implied = match &self.target {
            Target::Network { port, tls, .. } => *port == if *tls { 443 } else { 80 },
            Target::Kubelet { port, .. } => *port == 443,
        };
        let alone = self.host.rsplit_once(':').filter(|_| implied).map(|(host, _)| host.to_owned());
        alone.into_iter().chain([self.host.clone()]).collect()
    }
}

pub fn destination(call: &Call) -> Result<Destination, ApiError> {
    match (call.resource.plural.as_str(), call.info.subresource.as_str()) {
        ("pods", "log") => pod_log(call),
        ("pods", "exec" | "attach") => pod_command(call),
        ("pods", "portforward") => pod_port_forward(call),
        ("pods", "proxy") => pod_proxy(call),
        ("services", "proxy") => service_proxy(call),
        ("nodes", "proxy") => node_proxy(call),
        _ => Err(ApiError::no_such_resource()),
    }
}

fn pod_of(call: &Call, name: &str) -> Result<std::sync::Arc<Value>, ApiError> {
    call.registry().get("", "pods", call.namespace(), name).ok_or_else(|| ApiError::not_found("", "pods", name))
}

/// The kubelet that runs a Pod.
fn kubelet_of(call: &Call, pod: &Value) -> Result<(Target, String), ApiError> {
    let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
    if node.is_empty() {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    kubelet(call, node)
}

fn kubelet(call: &Call, name: &str) -> Result<(Target, String), ApiError> {
    let node = call.registry().get("", "nodes", "", name).ok_or_else(|| ApiError::not_found("", "nodes", name))?;
    let addresses = node["status"]["addresses"].as_array().cloned().unwrap_or_default();
    let host = ["InternalIP", "Hostname", "ExternalIP"]
        .iter()
        .find_map(|kind| addresses.iter().find(|a| a["type"] == *kind))
        .and_then(|address| address["address"].as_str())
        .ok_or_else(|| ApiError::internal(format!("no preferred addresses found; known addresses: {addresses:?}")))?
        .to_owned();
    let port = node["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0)
        .unwrap_or(KUBELET_PORT);
    let header = authority(&host, port);
    Ok((Target::Kubelet { node: name.to_owned(), host, port }, header))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The container that is meant: named, or the only one.
fn container(pod: &Value, query: &Query) -> Result<String, ApiError> {
    let names = |field: &str| -> Vec<String> {
        let list = pod["spec"][field].as_array().into_iter().flatten();
        list.filter_map(|c| c["name"].as_str().map(str::to_owned)).collect()
    };
    let pod_name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let main = names("containers");
    let (init, ephemeral) = (names("initContainers"), names("ephemeralContainers"));
    match query.get("container").unwrap_or_default() {
        "" if main.len() == 1 => Ok(main[0].clone()),
        "" => {
            let mut text =
                format!("a container name must be specified for pod {pod_name}, choose one of: [{}]", main.join(" "));
            for (list, what) in [(&init, "init"), (&ephemeral, "ephemeral")] {
                if !list.is_empty() {
                    text.push_str(&format!(" or one of the {what} containers: [{}]", list.join(" ")));
                }
            }
            Err(ApiError::bad_request(text))
        }
        name if main.iter().chain(&init).chain(&ephemeral).any(|n| n == name) => Ok(name.to_owned()),
        name => Err(ApiError::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
    }
}

fn pod_log(call: &Call) -> Result<Destination, ApiError> {
    check_log_options(&call.query)?;
    let pod = pod_of(call, &call.info.name)?;
    let container = container(&pod, &call.query)?;
    let (target, host) = kubelet_of(call, &pod)?;
    let path = format!("/containerLogs/{}/{}/{container}", call.namespace(), call.info.name);
    let keep = ["follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream"];
    Ok(Destination { target, host, path, query: filter_query(&call.query, &keep) })
}

fn check_log_options(query: &Query) -> Result<(), ApiError> {
    let invalid = |field: &str, value: i64, detail: &str| {
        let cause = serde_json::json!({
            "reason": "FieldValueInvalid", "message": format!("Invalid value: {value}: {detail}"), "field": field
        });
        Err(ApiError::invalid("", "PodLogOptions", "", vec![cause]))
    };
    if let Some(lines) = query.number("tailLines")?.filter(|lines| *lines < 0) {
        return invalid("tailLines", lines, "must be greater than or equal to 0");
    }
    if let Some(bytes) = query.number("limitBytes")?.filter(|bytes| *bytes < 1) {
        return invalid("limitBytes", bytes, "must be greater than 0");
    }
    match query.number("sinceSeconds")? {
        Some(_) if query.get("sinceTime").is_some_and(|time| !time.is_empty()) => {
            let cause = serde_json::json!({
                "reason": "FieldValueForbidden",
                "message": "Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified",
                "field": ""
            });
            Err(ApiError::invalid("", "PodLogOptions", "", vec![cause]))
        }
        Some(seconds) if seconds < 1 => invalid("sinceSeconds", seconds, "must be greater than 0"),
        _ => Ok(()),
    }
}

fn pod_command(call: &Call) -> Result<Destination, ApiError> {
    let pod = pod_of(call, &call.info.name)?;
    let container = container(&pod, &call.query)?;
    let (target, host) = kubelet_of(call, &pod)?;
    let endpoint = call.info.subresource.as_str();
    if endpoint == "exec" && call.query.all("command").next().is_none() {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    let flags = [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")];
    for (ours, theirs) in flags {
        if call.query.flag(ours) {
            pairs.push((theirs, "1"));
        }
    }
    if !pairs.iter().any(|(name, _)| *name != "tty") {
        return Err(ApiError::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    for command in call.query.all("command").filter(|_| endpoint == "exec") {
        pairs.push(("command", command));
    }
    let path = format!("/{endpoint}/{}/{}/{container}", call.namespace(), call.info.name);
    Ok(Destination { target, host, path, query: encode_query(&pairs) })
}

fn pod_port_forward(call: &Call) -> Result<Destination, ApiError> {
    let pod = pod_of(call, &call.info.name)?;
    let (target, host) = kubelet_of(call, &pod)?;
    let path = format!("/portForward/{}/{}", call.namespace(), call.info.name);
    let ports: Vec<(&str, &str)> = call.query.all("ports").map(|port| ("port", port)).collect();
    Ok(Destination { target, host, path, query: encode_query(&ports) })
}

/// `[scheme:]name[:port]`.
fn split_name(name: &str) -> Result<(String, String, String), ApiError> {
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        [name] => Ok((String::new(), (*name).to_owned(), String::new())),
        [name, port] => Ok((String::new(), (*name).to_owned(), (*port).to_owned())),
        [scheme, name, port] if matches!(*scheme, "" | "http" | "https") => {
            Ok(((*scheme).to_owned(), (*name).to_owned(), (*port).to_owned()))
        }
        _ => Err(ApiError::bad_request(format!("invalid service request {name:?}"))),
    }
}

fn pod_proxy(call: &Call) -> Result<Destination, ApiError> {
    let (scheme, name, port) = split_name(&call.info.name)?;
    let pod = pod_of(call, &name)?;
    let host = pod["status"]["podIP"].as_str().unwrap_or_default().to_owned();
    if host.is_empty() {
        return Err(ApiError::bad_request("address not allowed"));
    }
    let port = match port.as_str() {
        "" => pod["spec"]["containers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["ports"].as_array())
            .flatten()
            .find_map(|p| p["containerPort"].as_u64())
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or(80),
        text => text.parse().map_err(|_| ApiError::bad_request(format!("invalid port {text:?}")))?,
    };
    Ok(network(call, &scheme, host, port))
}

fn network(call: &Call, scheme: &str, host: String, port: u16) -> Destination {
    let header = authority(&host, port);
    let tls = scheme == "https";
    Destination {
        target: Target::Network { host, port, tls },
        host: header,
        path: format!("/{}", call.info.rest),
        query: call.raw_query.clone(),
    }
}

fn service_proxy(call: &Call) -> Result<Destination, ApiError> {
    let (scheme, name, port) = split_name(&call.info.name)?;
    let registry = call.registry();
    let service = registry
        .get("", "services", call.namespace(), &name)
        .ok_or_else(|| ApiError::not_found("", "services", &name))?;
    let ports = service["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let wanted = match port.as_str() {
        "" if ports.len() == 1 => ports.first(),
        "" => ports.iter().find(|p| p["name"].as_str().unwrap_or_default().is_empty()),
        text => ports.iter().find(|p| p["name"] == text || p["port"].as_u64().is_some_and(|n| n.to_string() == text)),
    };
    let Some(wanted) = wanted else {
        return Err(ApiError::service_unavailable(format!("no service port {port:?} found for service {name:?}")));
    };
    let port_name = wanted["name"].as_str().unwrap_or_default();
    let mut backends: Vec<(String, u16)> = Vec::new();
    for slice in registry.list("discovery.k8s.io", "endpointslices", call.namespace()) {
        if slice["metadata"]["labels"]["kubernetes.io/service-name"] != name.as_str() {
            continue;
        }
        let number = slice["ports"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|p| p["name"].as_str().unwrap_or_default() == port_name)
            .and_then(|p| p["port"].as_u64())
            .and_then(|n| u16::try_from(n).ok());
        let Some(number) = number else { continue };
        for endpoint in slice["endpoints"].as_array().into_iter().flatten() {
            let ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
            if let Some(address) = endpoint["addresses"][0].as_str().filter(|_| ready) {
                backends.push((address.to_owned(), number));
            }
        }
    }
    if backends.is_empty() {
        return Err(ApiError::service_unavailable(format!("no endpoints available for service {name:?}")));
    }
    let chosen = registry.draw(backends.len() as u64) as usize;
    let (host, number) = backends.swap_remove(chosen);
    Ok(network(call, &scheme, host, number))
}

fn node_proxy(call: &Call) -> Result<Destination, ApiError> {
    let (scheme, name, port) = split_name(&call.info.name)?;
    let (target, host) = kubelet(call, &name)?;
    let path = format!("/{}", call.info.rest);
    if let (Target::Kubelet { host: address, port: kubelet_port, .. }, Ok(port)) = (&target, port.parse::<u16>())
        && port != *kubelet_port
    {
        return Ok(network(call, &scheme, address.clone(), port));
    }
    Ok(Destination { target, host, path, query: call.raw_query.clone() })
}

fn filter_query(query: &Query, keep: &[&str]) -> String {
    let pairs: Vec<(&str, &str)> = keep.iter().filter_map(|name| query.get(name).map(|value| (*name, value))).collect();
    encode_query(&pairs)
}

fn encode_query(pairs: &[(&str, &str)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => (byte as char).to_string(),
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    pairs.iter().map(|(k, v)| format!("{}={}", encode(k), encode(v))).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_proxied_things_may_carry_scheme_and_port() {
        let check = |text: &str, expect: (&str, &str, &str)| {
            let (a, b, c) = split_name(text).expect("splits");
            assert_eq!((a.as_str(), b.as_str(), c.as_str()), expect);
        };
        check("a", ("", "a", ""));
        check("a:80", ("", "a", "80"));
        check("https:a:web", ("https", "a", "web"));
        assert!(split_name("ftp:a:1").is_err());
    }

    #[test]
    fn a_server_on_its_schemes_port_may_leave_it_out() {
        let check = |host: &str, port: u16, tls: bool, expect: &[&str]| {
            let target = Target::Network { host: host.to_owned(), port, tls };
            let to = Destination { target, host: authority(host, port), path: "/".to_owned(), query: String::new() };
            assert_eq!(to.own_authorities(), expect);
        };
        check("10.0.0.1", 80, false, &["10.0.0.1", "10.0.0.1:80"]);
        check("10.0.0.1", 80, true, &["10.0.0.1:80"]);
        check("fd00::1", 443, true, &["[fd00::1]", "[fd00::1]:443"]);
        check("10.0.0.1", 8080, false, &["10.0.0.1:8080"]);
    }

    #[test]
    fn commands_survive_the_query() {
        assert_eq!(encode_query(&[("command", "a b&c"), ("command", "ü")]), "command=a%20b%26c&command=%C3%BC");
    }
}
