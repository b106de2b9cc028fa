//! The downward API: values of fields and resources, for environment variables and files.
//!
//! Input: pod, status facts, node allocatable. Output: the text, or upstream's error for a path that has none.

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use semantics::amount::{milli, whole};

use crate::resources::container_resource;
use crate::spec::{find_container, pod_spec};

/// What is known at run time only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeFacts {
    pub pod_ips: Vec<String>,
    pub host_ips: Vec<String>,
    /// Stand-ins for missing limits: thousandths of a core, bytes.
    pub allocatable_cpu_milli: i64,
    pub allocatable_memory_bytes: i64,
    pub allocatable_ephemeral_bytes: i64,
}

/// `fieldRef` of an environment variable or a file.
pub fn field_value(pod: &Pod, selector: &ObjectFieldSelector, facts: &RuntimeFacts) -> Result<String, String> {
    let meta = &pod.metadata;
    let path = selector.field_path.as_str();
    if let Some((map, key)) = subscript(path) {
        let list = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("invalid field path: {path}: \"{map}\" does not support subscript")),
        };
        return Ok(list.as_ref().and_then(|list| list.get(key)).cloned().unwrap_or_default());
    }
    let value = match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "spec.nodeName" => pod_spec(pod).node_name.clone().unwrap_or_default(),
        "spec.serviceAccountName" => pod_spec(pod).service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    };
    Ok(value)
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// `key="value"` lines, sorted, with Go's quoting.
fn format_map(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", go_quote(value)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Go's `%q`.
fn go_quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// `resourceFieldRef`: the value divided by the divisor, rounded up. `own` is used where no container is named.
pub fn resource_value(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &RuntimeFacts,
) -> Result<String, String> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match (named, own) {
        (Some(name), _) => find_container(pod, name).ok_or_else(|| format!("container {name} not found"))?,
        (None, Some(own)) => own.clone(),
        (None, None) => return Err("container name is required".to_owned()),
    };
    let (limits, name) = match selector.resource.split_once('.') {
        Some(("limits", name)) => (true, name),
        Some(("requests", name)) => (false, name),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let quantity = container_resource(&container, name, limits);
    let one = Quantity("1".to_owned());
    let divisor = selector.divisor.as_ref().filter(|divisor| milli(divisor) != 0).unwrap_or(&one);
    let (value, divisor) = match name {
        "cpu" => (cpu_or_allocatable(quantity, limits, facts), milli(divisor)),
        "memory" => (bytes_or(quantity, limits, facts.allocatable_memory_bytes), whole(divisor)),
        "ephemeral-storage" => (bytes_or(quantity, limits, facts.allocatable_ephemeral_bytes), whole(divisor)),
        name if name.starts_with("hugepages-") => (bytes_or(quantity, limits, 0), whole(divisor)),
        _ => return Err(format!("unsupported container resource : {}", selector.resource)),
    };
    let divisor = divisor.max(1);
    Ok(value.div_euclid(divisor).saturating_add(i64::from(value.rem_euclid(divisor) > 0)).to_string())
}

fn cpu_or_allocatable(quantity: Option<&Quantity>, limits: bool, facts: &RuntimeFacts) -> i64 {
    let own = quantity.map_or(0, milli);
    if own == 0 && limits { facts.allocatable_cpu_milli } else { own }
}

fn bytes_or(quantity: Option<&Quantity>, limits: bool, allocatable: i64) -> i64 {
    let bytes = quantity.map_or(0, whole);
    if bytes == 0 && limits { allocatable } else { bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expect: Result<&str, &str>) {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".to_owned());
        pod.metadata.labels = Some([("a".to_owned(), "x\"y".to_owned()), ("b".to_owned(), "2".to_owned())].into());
        let selector = ObjectFieldSelector { field_path: path.to_owned(), ..Default::default() };
        let facts = RuntimeFacts { pod_ips: vec!["1.2.3.4".to_owned()], ..Default::default() };
        let got = field_value(&pod, &selector, &facts);
        assert_eq!(got.as_deref().map_err(String::as_str), expect, "{path}");
    }

    #[test]
    fn fields() {
        check("metadata.name", Ok("p"));
        check("metadata.labels", Ok("a=\"x\\\"y\"\nb=\"2\""));
        check("metadata.labels['b']", Ok("2"));
        check("metadata.labels['none']", Ok(""));
        check("status.podIP", Ok("1.2.3.4"));
        check("spec.wrong", Err("unsupported fieldPath: spec.wrong"));
    }

    #[test]
    fn resources_divide_and_round_up() {
        let facts = RuntimeFacts { allocatable_cpu_milli: 2000, ..Default::default() };
        let container = Container { name: "c".to_owned(), ..Default::default() };
        let selector = |resource: &str, divisor: Option<&str>| ResourceFieldSelector {
            resource: resource.to_owned(),
            divisor: divisor.map(|d| Quantity(d.to_owned())),
            ..Default::default()
        };
        let pod = Pod::default();
        assert_eq!(resource_value(&pod, Some(&container), &selector("limits.cpu", None), &facts), Ok("2".to_owned()));
        assert_eq!(
            resource_value(&pod, Some(&container), &selector("limits.cpu", Some("1m")), &facts),
            Ok("2000".to_owned())
        );
        assert_eq!(resource_value(&pod, Some(&container), &selector("requests.cpu", None), &facts), Ok("0".to_owned()));
    }
}
