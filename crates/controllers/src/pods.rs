//! Pods made of a template: owner and template -> the pod, and the Events that tell of creating and deleting it.
//!
//! The reasons and messages are upstream's, the same for every controller that makes pods.

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::plan::reference;
use reconcile::{Announce, Object, Write, owner_reference};

/// The pod of `owner`'s `template`; the API gives it a name that begins with the owner's.
pub fn derive_pod<O: Object>(owner: &O, template: &PodTemplateSpec) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.metadata().name.as_deref().unwrap_or_default())),
            namespace: owner.metadata().namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_reference(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Creates the pod and tells its owner's Events of it.
pub fn create<O: Object>(owner: &O, pod: &Pod) -> Write {
    Write::create(pod).announcing(Announce {
        regarding: reference(owner),
        success: Some(("SuccessfulCreate", "Created pod: ".to_owned())),
        name_on_success: true,
        failure: Some(("FailedCreate", "Error creating: ".to_owned())),
    })
}

/// Deletes the pod and tells its owner's Events of it.
pub fn delete<O: Object>(owner: &O, pod: &Pod) -> Write {
    Write::delete(pod).announcing(Announce {
        regarding: reference(owner),
        success: Some(("SuccessfulDelete", "Deleted pod: ".to_owned())),
        name_on_success: true,
        failure: Some(("FailedDelete", "Error deleting: ".to_owned())),
    })
}
