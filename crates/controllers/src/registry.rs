//! The controllers there are: one row each.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use reconcile::Registrar;

use crate::deployment::DeploymentController;
use crate::garbage::GarbageCollector;
use crate::namespaces::NamespaceController;
use crate::replicas::ReplicaController;
use crate::root_ca::RootCaPublisher;
use crate::service_accounts::ServiceAccountController;

/// What controllers need to know of the cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The certificates that sign the API server's, PEM.
    pub root_ca_pem: String,
}

/// Hands every controller to `registrar`, which runs it.
pub fn register_all<R: Registrar>(registrar: &mut R, settings: &Settings) {
    registrar.register(ServiceAccountController);
    registrar.register(RootCaPublisher::new(settings.root_ca_pem.clone()));
    registrar.register(ReplicaController::<ReplicaSet>::default());
    registrar.register(ReplicaController::<ReplicationController>::default());
    registrar.register(DeploymentController);
    registrar.register(NamespaceController);
    registrar.register(GarbageCollector);
}
