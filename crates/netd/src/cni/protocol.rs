//! The words of the CNI specification: a call parsed from environment and JSON, the result and the error document.
//!
//! Invariant: unknown fields are ignored, missing required ones are error 4 (environment) or 7 (configuration); the
//! documents carry the `cniVersion` of the caller.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use netplan::Cidr;
use serde::Deserialize;
use serde_json::{Value, json};

/// Versions of the specification whose documents we read and write.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Longest interface name the kernel takes.
const INTERFACE_NAME_MAX: usize = 15;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Add,
    Del,
    Check,
    Version,
    Status,
    Gc,
}

/// One invocation. Fields that a command does not use are empty.
#[derive(Debug, Clone)]
pub struct Call {
    pub command: Command,
    pub container_id: String,
    /// Interface name inside the sandbox, `eth0` in practice.
    pub interface: String,
    /// Path of the sandbox's network namespace; may be gone on DEL.
    pub netns: Option<PathBuf>,
    pub config: NetworkConfig,
}

/// The plugin configuration as the runtime hands it over.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkConfig {
    pub cni_version: String,
    #[serde(default)]
    pub name: String,
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Ours: the node's Pod addresses, e.g. `10.42.0.0/24`.
    #[serde(rename = "podCIDR")]
    pub pod_cidr: Option<Cidr>,
    /// Ours: MTU of Pod interfaces.
    #[serde(default = "default_mtu")]
    pub mtu: u32,
    /// Ours: where addresses are recorded.
    #[serde(default)]
    pub data_dir: PathBuf,
    #[serde(default)]
    pub runtime_config: RuntimeConfig,
    #[serde(rename = "cni.dev/valid-attachments", default)]
    pub valid_attachments: Vec<Attachment>,
}

fn default_mtu() -> u32 {
    1500
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeConfig {
    #[serde(default)]
    pub port_mappings: Vec<PortMapping>,
}

/// A container port published on the host. containerd writes the fields with a capital letter, CRI-O as the specification.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(alias = "HostPort", default)]
    pub host_port: u16,
    #[serde(alias = "ContainerPort", default)]
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`, in any case; `tcp` when absent.
    #[serde(alias = "Protocol", default)]
    pub protocol: String,
    #[serde(rename = "hostIP", alias = "HostIP", default)]
    pub host_ip: String,
}

/// A sandbox interface that must stay, as GC lists them.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

impl Call {
    /// Parses the environment and the configuration of one invocation.
    pub fn parse(vars: &BTreeMap<String, String>, input: &[u8]) -> Result<Self, CniError> {
        let command = match vars.get("CNI_COMMAND").map_or("", String::as_str) {
            "ADD" => Command::Add,
            "DEL" => Command::Del,
            "CHECK" => Command::Check,
            "VERSION" => Command::Version,
            "STATUS" => Command::Status,
            "GC" => Command::Gc,
            other => return Err(CniError::new(4, "unknown CNI_COMMAND", other)),
        };
        let config: NetworkConfig = serde_json::from_slice(input)
            .map_err(|error| CniError::new(6, "the network configuration is not valid", &error.to_string()))?;
        if command != Command::Version && !VERSIONS.contains(&config.cni_version.as_str()) {
            return Err(CniError::new(1, "incompatible CNI version", &config.cni_version));
        }
        let variable = |name: &str| vars.get(name).filter(|value| !value.is_empty()).cloned();
        let call = Self {
            command,
            container_id: variable("CNI_CONTAINERID").unwrap_or_default(),
            interface: variable("CNI_IFNAME").unwrap_or_default(),
            netns: variable("CNI_NETNS").map(PathBuf::from),
            config,
        };
        call.validate().map_err(|error| error.in_version(call.version()))?;
        Ok(call)
    }

    pub fn version(&self) -> &str {
        &self.config.cni_version
    }

    fn validate(&self) -> Result<(), CniError> {
        let attaches = matches!(self.command, Command::Add | Command::Del | Command::Check);
        if attaches && !is_container_id(&self.container_id) {
            return Err(CniError::new(4, "invalid CNI_CONTAINERID", &self.container_id));
        }
        if attaches && !is_interface_name(&self.interface) {
            return Err(CniError::new(4, "invalid CNI_IFNAME", &self.interface));
        }
        if matches!(self.command, Command::Add | Command::Check) && self.netns.is_none() {
            return Err(CniError::new(4, "CNI_NETNS is missing", ""));
        }
        Ok(())
    }
}

fn is_container_id(id: &str) -> bool {
    let first = id.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn is_interface_name(name: &str) -> bool {
    let length = (1..=INTERFACE_NAME_MAX).contains(&name.len());
    length
        && name != "."
        && name != ".."
        && !name.bytes().any(|byte| b"/:".contains(&byte) || byte.is_ascii_whitespace())
}

/// What an ADD made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    /// The host's end; absent for `lo`.
    pub host: Option<(String, Vec<u8>)>,
    pub interface: String,
    pub mac: Vec<u8>,
    pub netns: PathBuf,
    pub address: IpAddr,
    pub prefix: u8,
    pub gateway: Option<IpAddr>,
}

impl Attached {
    /// The result document in the caller's version.
    pub fn document(&self, version: &str) -> String {
        let mut interfaces = Vec::new();
        if let Some((name, mac)) = &self.host {
            interfaces.push(json!({"name": name, "mac": mac_text(mac)}));
        }
        interfaces.push(json!({"name": self.interface, "mac": mac_text(&self.mac), "sandbox": self.netns}));
        let mut ip = json!({"interface": interfaces.len() - 1, "address": format!("{}/{}", self.address, self.prefix)});
        if let Some(gateway) = self.gateway {
            ip["gateway"] = json!(gateway);
        }
        if version.starts_with("0.") {
            ip["version"] = json!(if self.address.is_ipv4() { "4" } else { "6" });
        }
        let routes: Vec<Value> =
            self.gateway.iter().map(|gateway| json!({"dst": "0.0.0.0/0", "gw": gateway})).collect();
        json!({"cniVersion": version, "interfaces": interfaces, "ips": [ip], "routes": routes, "dns": {}}).to_string()
    }
}

pub fn version_document(version: &str) -> String {
    json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string()
}

fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// A failed command, as the specification wants it told.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{msg}: {details}")]
pub struct CniError {
    /// 1 version, 3 unknown container, 4 environment, 5 input/output, 6 decoding, 7 configuration, 11 try again later,
    /// 50 plugin not available; 100 and up are ours: 100 no address left, 101 attachment differs from what ADD made.
    pub code: u32,
    pub msg: String,
    pub details: String,
    version: String,
}

impl CniError {
    pub fn new(code: u32, msg: &str, details: &str) -> Self {
        Self { code, msg: msg.to_owned(), details: details.to_owned(), version: "1.0.0".to_owned() }
    }

    /// A failed system call or file operation; `operation` reads as "could not ...".
    pub fn io(operation: &str, error: &std::io::Error) -> Self {
        Self::new(5, &format!("could not {operation}"), &error.to_string())
    }

    pub fn in_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    pub fn document(&self) -> String {
        json!({"cniVersion": self.version, "code": self.code, "msg": self.msg, "details": self.details}).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(vars: &[(&str, &str)], input: &str) -> Result<Call, u32> {
        let vars = vars.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Call::parse(&vars, input.as_bytes()).map_err(|error| error.code)
    }

    const CONFIG: &str = r#"{"cniVersion":"1.0.0","name":"holdfast","type":"holdfast-cni","podCIDR":"10.42.3.0/24"}"#;

    #[test]
    fn malformed_calls_get_the_codes_of_the_specification() {
        let add = ("CNI_COMMAND", "ADD");
        assert_eq!(call(&[("CNI_COMMAND", "NOPE")], CONFIG).err(), Some(4));
        assert_eq!(call(&[add], "{").err(), Some(6));
        assert_eq!(call(&[add], r#"{"cniVersion":"9.0.0"}"#).err(), Some(1));
        assert_eq!(call(&[add], CONFIG).err(), Some(4));
        assert_eq!(call(&[add, ("CNI_CONTAINERID", "../x"), ("CNI_IFNAME", "eth0")], CONFIG).err(), Some(4));
        assert_eq!(call(&[add, ("CNI_CONTAINERID", "x"), ("CNI_IFNAME", "eth0")], CONFIG).err(), Some(4));
        assert_eq!(call(&[add], r#"{"cniVersion":"1.0.0","podCIDR":"10.0.0.0/40"}"#).err(), Some(6));
    }

    #[test]
    fn host_ports_are_read_as_any_runtime_writes_them() {
        let read = |text: &str| serde_json::from_str::<PortMapping>(text).unwrap();
        let specification = r#"{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"127.0.0.1"}"#;
        let containerd = r#"{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":"127.0.0.1"}"#;
        assert_eq!(read(specification), read(containerd));
        assert_eq!(read(containerd).host_port, 8080);
    }

    #[test]
    fn results_follow_the_callers_version() {
        let attached = Attached {
            host: Some(("hfv1".to_owned(), vec![2, 0, 0, 0, 0, 1])),
            interface: "eth0".to_owned(),
            mac: vec![2, 0, 0, 0, 0, 2],
            netns: "/run/netns/a".into(),
            address: "10.42.0.5".parse().unwrap(),
            prefix: 32,
            gateway: Some("10.42.0.1".parse().unwrap()),
        };
        let new: Value = serde_json::from_str(&attached.document("1.0.0")).unwrap();
        assert_eq!(
            new,
            json!({"cniVersion": "1.0.0", "dns": {}, "routes": [{"dst": "0.0.0.0/0", "gw": "10.42.0.1"}],
                "interfaces": [{"name": "hfv1", "mac": "02:00:00:00:00:01"},
                    {"name": "eth0", "mac": "02:00:00:00:00:02", "sandbox": "/run/netns/a"}],
                "ips": [{"address": "10.42.0.5/32", "gateway": "10.42.0.1", "interface": 1}]})
        );
        let old: Value = serde_json::from_str(&attached.document("0.4.0")).unwrap();
        assert_eq!(old["ips"][0]["version"], "4");
    }
}
