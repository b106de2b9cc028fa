//! The controllers there are: one row each.

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use reconcile::Registrar;

use crate::daemons::DaemonSetController;
use crate::deployment::DeploymentController;
use crate::endpoints::legacy::EndpointsController;
use crate::endpoints::mirroring::EndpointSliceMirroringController;
use crate::endpoints::slices::EndpointSliceController;
use crate::garbage::GarbageCollector;
use crate::namespaces::NamespaceController;
use crate::nodes::cidr::{CidrRange, NodeCidrController};
use crate::nodes::eviction::TaintEvictionController;
use crate::nodes::health::NodeHealthController;
use crate::nodes::pod_gc::PodGarbageCollector;
use crate::protection::{ClaimProtection, VolumeProtection};
use crate::quotas::ResourceQuotaController;
use crate::replicas::ReplicaController;
use crate::root_ca::RootCaPublisher;
use crate::service_accounts::ServiceAccountController;
use crate::stateful::StatefulSetController;

/// What controllers need to know of the cluster.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The certificates that sign the API server's, PEM.
    pub root_ca_pem: String,
    /// Where each node's part of the pod network comes from.
    pub pod_range: CidrRange,
}

/// Hands every controller to `registrar`, which runs it.
pub fn register_all<R: Registrar>(registrar: &mut R, settings: &Settings) {
    registrar.register(ServiceAccountController);
    registrar.register(RootCaPublisher::new(settings.root_ca_pem.clone()));
    registrar.register(ReplicaController::<ReplicaSet>::default());
    registrar.register(ReplicaController::<ReplicationController>::default());
    registrar.register(DeploymentController);
    registrar.register(DaemonSetController);
    registrar.register(StatefulSetController);
    registrar.register(EndpointSliceController);
    registrar.register(EndpointsController);
    registrar.register(EndpointSliceMirroringController);
    registrar.register(NodeCidrController::new(settings.pod_range));
    registrar.register(NodeHealthController);
    registrar.register(TaintEvictionController);
    registrar.register(PodGarbageCollector);
    registrar.register(ResourceQuotaController);
    registrar.register(NamespaceController);
    registrar.register(ClaimProtection);
    registrar.register(VolumeProtection);
    registrar.register(GarbageCollector);
}
