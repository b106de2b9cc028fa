//! The table of strategies: a kind -> its rules.
//!
//! One short file a kind, in a folder a group. A kind without rules of its own gets the common strategy of its shape.

mod apps;
mod batch;
mod core;
mod other;

use crate::names::{path_segment_name, subdomain_name};
use crate::strategy::{CommonStrategy, Generation, Shape, StatusMetadata, Strategy};
use crate::typed::Typed;

pub use self::core::binding::{bind, validate_binding};
pub use self::core::service::prepare_allocation as prepare_service_allocation;
pub use self::other::priority_class::USER_PRIORITY_MAX;

/// The strategy of a row of the kinds table. Kinds without rules of their own get the common one of their shape.
pub fn strategy(kind: &api::kinds::Kind) -> &'static dyn Strategy {
    let found = strategy_of(kind.group, kind.version, kind.kind);
    let plain = std::ptr::eq(std::ptr::from_ref(found).cast::<u8>(), std::ptr::from_ref(&PLAIN).cast::<u8>());
    if plain && kind.has_status() { &SPEC_AND_STATUS } else { found }
}

/// The strategy of a kind, named by group (`""` for core), version and kind.
pub fn strategy_of(group: &str, version: &str, kind: &str) -> &'static dyn Strategy {
    match group {
        "" => core_strategy(kind),
        "apps" => apps_strategy(kind),
        "batch" => batch_strategy(kind),
        "rbac.authorization.k8s.io" => other::rbac::strategy(kind),
        "storage.k8s.io" => other::storage::strategy(kind),
        "networking.k8s.io" => other::networking::strategy(kind),
        "admissionregistration.k8s.io" => other::admission::strategy(version, kind),
        "autoscaling" => other::autoscaling::strategy(version, kind),
        _ => single_kind_group(group, version, kind),
    }
}

/// Kinds without rules of their own, and custom resources.
pub(crate) static PLAIN: CommonStrategy = CommonStrategy { shape: Shape::new(subdomain_name).any_finalizers() };

/// A kind with a spec, a status and a generation, but no rules of its own.
pub static SPEC_AND_STATUS: CommonStrategy =
    CommonStrategy { shape: Shape::new(subdomain_name).generation(Generation::Spec).with_status().any_finalizers() };

static STATUS_KEEPS_METADATA: CommonStrategy = CommonStrategy {
    shape: Shape::new(subdomain_name).generation(Generation::Spec).with_status().status_metadata(StatusMetadata::Keep),
};

static STATUS_ONLY: CommonStrategy = CommonStrategy {
    shape: Shape::new(subdomain_name).with_status().status_metadata(StatusMetadata::Keep).any_finalizers(),
};

fn core_strategy(kind: &str) -> &'static dyn Strategy {
    match kind {
        "Pod" => const { &Typed::<core::pod::PodRules>::new() },
        "PodTemplate" => const { &Typed::<core::pod_template::PodTemplateRules>::new() },
        "ReplicationController" => const { &Typed::<core::replication_controller::ReplicationControllerRules>::new() },
        "Service" => const { &Typed::<core::service::ServiceRules>::new() },
        "Endpoints" => const { &Typed::<core::endpoints::EndpointsRules>::new() },
        "Namespace" => const { &Typed::<core::namespace::NamespaceRules>::new() },
        "Node" => const { &Typed::<core::node::NodeRules>::new() },
        "ConfigMap" => const { &Typed::<core::config_map::ConfigMapRules>::new() },
        "Secret" => const { &Typed::<core::secret::SecretRules>::new() },
        "ServiceAccount" => const { &Typed::<core::service_account::ServiceAccountRules>::new() },
        "PersistentVolume" => const { &Typed::<core::persistent_volume::PersistentVolumeRules>::new() },
        "PersistentVolumeClaim" => const { &Typed::<core::claim::ClaimRules>::new() },
        "LimitRange" => const { &Typed::<core::limit_range::LimitRangeRules>::new() },
        "ResourceQuota" => const { &Typed::<core::resource_quota::ResourceQuotaRules>::new() },
        "Event" => const { &Typed::<core::event::EventRules>::new() },
        _ => &PLAIN,
    }
}

fn apps_strategy(kind: &str) -> &'static dyn Strategy {
    match kind {
        "Deployment" => const { &Typed::<apps::deployment::DeploymentRules>::new() },
        "ReplicaSet" => const { &Typed::<apps::replica_set::ReplicaSetRules>::new() },
        "DaemonSet" => const { &Typed::<apps::daemon_set::DaemonSetRules>::new() },
        "StatefulSet" => const { &Typed::<apps::stateful_set::StatefulSetRules>::new() },
        "ControllerRevision" => const { &Typed::<apps::controller_revision::ControllerRevisionRules>::new() },
        _ => &PLAIN,
    }
}

fn batch_strategy(kind: &str) -> &'static dyn Strategy {
    match kind {
        "Job" => const { &Typed::<batch::job::JobRules>::new() },
        "CronJob" => const { &Typed::<batch::cron_job::CronJobRules>::new() },
        _ => &PLAIN,
    }
}

fn single_kind_group(group: &str, version: &str, kind: &str) -> &'static dyn Strategy {
    match (group, version, kind) {
        ("coordination.k8s.io", "v1", "Lease") => const { &Typed::<other::lease::LeaseRules>::new() },
        ("discovery.k8s.io", "v1", "EndpointSlice") => {
            const { &Typed::<other::endpoint_slice::EndpointSliceRules>::new() }
        }
        ("events.k8s.io", "v1", "Event") => const { &Typed::<other::events::EventRules>::new() },
        ("policy", "v1", "PodDisruptionBudget") => {
            const { &Typed::<other::disruption_budget::DisruptionBudgetRules>::new() }
        }
        ("scheduling.k8s.io", "v1", "PriorityClass") => {
            const { &Typed::<other::priority_class::PriorityClassRules>::new() }
        }
        ("node.k8s.io", "v1", "RuntimeClass") => const { &Typed::<other::runtime_class::RuntimeClassRules>::new() },
        ("certificates.k8s.io", "v1", "CertificateSigningRequest") => {
            const { &Typed::<other::certificate::CertificateSigningRequestRules>::new() }
        }
        ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema") => {
            const { &Typed::<other::flowcontrol::FlowSchemaRules>::new() }
        }
        ("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration") => {
            const { &Typed::<other::flowcontrol::PriorityLevelRules>::new() }
        }
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition") => {
            &other::custom_resource_definition::CustomResourceDefinitionStrategy
        }
        ("apiregistration.k8s.io", _, _) => &STATUS_ONLY,
        ("resource.k8s.io", _, "ResourceClaim") => &STATUS_ONLY,
        ("resource.k8s.io", _, "ResourceSlice" | "DeviceClass") => &SPEC,
        ("certificates.k8s.io", _, "PodCertificateRequest") => &STATUS_ONLY,
        ("storagemigration.k8s.io" | "scheduling.k8s.io", _, _) if kind.ends_with("Group") => &STATUS_KEEPS_METADATA,
        _ => &PLAIN,
    }
}

/// A kind with a spec and a generation, without a status.
pub(crate) static SPEC: CommonStrategy =
    CommonStrategy { shape: Shape::new(subdomain_name).generation(Generation::Spec) };

pub(crate) static PATH_NAMED: CommonStrategy = CommonStrategy { shape: Shape::new(path_segment_name) };

#[cfg(test)]
mod tests;
