//! The controllers there are: one row each.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use reconcile::Registrar;

use crate::deployment::DeploymentController;
use crate::replicas::ReplicaController;

/// Hands every controller to `registrar`, which runs it.
pub fn register_all<R: Registrar>(registrar: &mut R) {
    registrar.register(ReplicaController::<ReplicaSet>::default());
    registrar.register(ReplicaController::<ReplicationController>::default());
    registrar.register(DeploymentController);
}
