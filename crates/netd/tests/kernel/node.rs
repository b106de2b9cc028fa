//! A node of its own for a test: a namespace that netd has set up, and the CNI calls a runtime would make.

use std::collections::BTreeMap;
use std::path::PathBuf;

use netd::cni::protocol::Call;
use netd::setup::{self, CniPaths, NodeNetwork};
use serde_json::{Value, json};

use crate::namespaces::TestNs;

/// See the module's text.
pub(crate) struct Node {
    pub(crate) host: TestNs,
    pub(crate) paths: CniPaths,
    pub(crate) dir: PathBuf,
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let host = TestNs::new(name);
        let dir = std::env::temp_dir().join(format!("holdfast-cni-{name}-{}", std::process::id()));
        let paths = CniPaths::under(&dir);
        let network = NodeNetwork {
            pod_cidr: "10.42.0.0/24".parse().unwrap(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            dns: "10.43.0.10".parse().unwrap(),
            mtu: None,
        };
        host.enter(|| setup::apply(&network, &paths, "/proc/self/exe".as_ref())).unwrap();
        host.enter(|| setup::apply(&network, &paths, "/proc/self/exe".as_ref())).unwrap();
        Self { host, paths, dir }
    }

    /// The call as the runtime would make it from the configuration that netd wrote.
    pub(crate) fn call(&self, command: &str, id: &str, pod: &TestNs, ports: &Value) -> Result<String, u32> {
        let conflist: Value =
            serde_json::from_slice(&std::fs::read(self.paths.conf.join("10-holdfast.conflist")).unwrap()).unwrap();
        let mut config = conflist["plugins"][0].clone();
        config["cniVersion"] = conflist["cniVersion"].clone();
        config["name"] = conflist["name"].clone();
        config["runtimeConfig"] = json!({"portMappings": ports});
        let vars = BTreeMap::from(
            [
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", id),
                ("CNI_IFNAME", "eth0"),
                ("CNI_NETNS", pod.path().to_str().unwrap()),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        let call = Call::parse(&vars, config.to_string().as_bytes()).map_err(|error| error.code)?;
        self.host.enter(|| netd::cni::execute(&call)).map_err(|error| {
            eprintln!("{command}: {error}");
            error.code
        })
    }

    pub(crate) fn add(&self, id: &str, pod: &TestNs, ports: &Value) -> String {
        let result: Value = serde_json::from_str(&self.call("ADD", id, pod, ports).unwrap()).unwrap();
        result["ips"][0]["address"].as_str().unwrap().trim_end_matches("/32").to_owned()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
