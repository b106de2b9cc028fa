//! Defaults of persistent volume claims and of templates that make them.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec};

use super::{fill, fill_text};
use crate::resources::round_up;

/// A claim of its own or a claim template of a StatefulSet.
pub fn default_claim(claim: &mut PersistentVolumeClaim) {
    if let Some(spec) = &mut claim.spec {
        default_claim_spec(spec);
    }
    let status = claim.status.get_or_insert_default();
    fill_text(&mut status.phase, "Pending");
    round_up(&mut status.capacity);
    round_up(&mut status.allocated_resources);
}

/// The spec, wherever it stands.
pub fn default_claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    fill(&mut spec.volume_mode, "Filesystem".to_owned());
    if let Some(resources) = &mut spec.resources {
        round_up(&mut resources.limits);
        round_up(&mut resources.requests);
    }
}
