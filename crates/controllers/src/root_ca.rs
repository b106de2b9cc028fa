//! Every namespace has a ConfigMap `kube-root-ca.crt` with the certificates that sign the API server's.
//!
//! Invariant: the ConfigMap's data is exactly ours; edits are undone. None is made in a namespace that is being deleted.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Controller, Input, Key, Plan, View, Watches, Write};

use crate::labels::Labels;
use crate::service_accounts::is_alive;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// A fact of the API that users may look for.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
    endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions \
    of Kubernetes clusters.";

/// The controller. Its keys are namespaces.
#[derive(Debug)]
pub struct RootCaPublisher {
    ca_pem: String,
}

impl RootCaPublisher {
    pub fn new(ca_pem: String) -> Self {
        Self { ca_pem }
    }
}

impl Controller for RootCaPublisher {
    type Memory = ();

    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Namespace>(reconcile::controller::own_key);
        watches.watch::<ConfigMap>(config_map_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let mut plan = Plan::empty();
        let name = &input.key.name;
        if input.failure.is_some()
            || !input.view.get::<Namespace>("", name).is_some_and(|namespace| is_alive(&namespace))
        {
            return plan;
        }
        let data = Labels::from([("ca.crt".to_owned(), self.ca_pem.clone())]);
        match input.view.get::<ConfigMap>(name, NAME) {
            None => plan.writes.push(Write::create(&derive_config_map(name, data))),
            Some(found) if found.data.as_ref() != Some(&data) => {
                plan.writes.push(Write::replace(&ConfigMap { data: Some(data), ..(*found).clone() }));
            }
            Some(_) => {}
        }
        plan
    }
}

fn derive_config_map(namespace: &str, data: Labels) -> ConfigMap {
    let metadata = ObjectMeta {
        name: Some(NAME.to_owned()),
        namespace: Some(namespace.to_owned()),
        annotations: Some(Labels::from([(DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned())])),
        ..ObjectMeta::default()
    };
    ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
}

fn config_map_keys(config_map: &ConfigMap, _: &View) -> Vec<Key> {
    let is_ours = config_map.metadata.name.as_deref() == Some(NAME);
    config_map.metadata.namespace.clone().filter(|_| is_ours).map(Key::cluster).into_iter().collect()
}
