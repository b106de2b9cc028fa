//! Every namespace has a ServiceAccount `default`: namespaces and accounts -> accounts to create.
//!
//! Invariant: none is created in a namespace that is being deleted. Does not make tokens.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::{Controller, Input, Key, Plan, View, Watches, Write};

const NAME: &str = "default";

/// The controller. Its keys are namespaces.
#[derive(Debug, Default)]
pub struct ServiceAccountController;

impl Controller for ServiceAccountController {
    type Memory = ();

    fn name(&self) -> &'static str {
        "service-account-controller"
    }

    fn watches<W: Watches>(&self, watches: &mut W) {
        watches.watch::<Namespace>(reconcile::controller::own_key);
        watches.watch::<ServiceAccount>(account_keys);
    }

    fn plan(&self, input: &Input<'_>, (): &mut ()) -> Plan {
        let mut plan = Plan::empty();
        let name = &input.key.name;
        let lives = input.view.get::<Namespace>("", name).is_some_and(|namespace| is_alive(&namespace));
        if lives && input.failure.is_none() && input.view.get::<ServiceAccount>(name, NAME).is_none() {
            let metadata =
                ObjectMeta { name: Some(NAME.to_owned()), namespace: Some(name.clone()), ..ObjectMeta::default() };
            plan.writes.push(Write::create(&ServiceAccount { metadata, ..ServiceAccount::default() }));
        }
        plan
    }
}

fn account_keys(account: &ServiceAccount, _: &View) -> Vec<Key> {
    let is_default = account.metadata.name.as_deref() == Some(NAME);
    account.metadata.namespace.clone().filter(|_| is_default).map(Key::cluster).into_iter().collect()
}

/// Whether things may still be created in the namespace.
pub(crate) fn is_alive(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}
