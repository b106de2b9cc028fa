//! PersistentVolumeClaims: their number and the storage that they ask for, in all and by storage class.

use std::collections::BTreeSet;

use api::quantity::Quantity;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ScopedResourceSelectorRequirement};

use super::selects;
use crate::resources::{Number as _, Quantities, ResourceList};

const CLAIMS: &str = "persistentvolumeclaims";
const STORAGE: &str = "requests.storage";
/// `CLASS.storageclass.storage.k8s.io/NAME`: the part of one storage class.
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
/// Says the class in claims older than the field.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) fn is_name(name: &str) -> bool {
    let of_all = |name: &str| matches!(name, CLAIMS | STORAGE);
    of_all(name) || name.rsplit_once(CLASS_SUFFIX).is_some_and(|(_, name)| of_all(name))
}

pub(super) fn usage(claim: &PersistentVolumeClaim) -> Quantities {
    let class = storage_class(claim);
    let per_class = |name: &str| (!class.is_empty()).then(|| format!("{class}{CLASS_SUFFIX}{name}"));
    let counts = [Some(format!("count/{CLAIMS}")), Some(CLAIMS.to_owned()), per_class(CLAIMS)];
    let mut usage = Quantities::whole(counts.into_iter().flatten().map(|name| (name, 1)));
    if let Some(storage) = storage(claim) {
        if let Some(name) = per_class(STORAGE) {
            usage.insert(&name, storage.clone());
        }
        usage.insert(STORAGE, storage);
    }
    usage
}

/// The bytes asked for or, where more, allocated (an expansion that was given up keeps what it took), whole.
fn storage(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    let of = |list: Option<&ResourceList>| list.and_then(|list| list.get("storage")).map(Quantity::of);
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let asked = of(resources.and_then(|resources| resources.requests.as_ref()))?;
    let allocated = of(claim.status.as_ref().and_then(|status| status.allocated_resources.as_ref()));
    let storage = allocated.filter(|allocated| *allocated > asked).unwrap_or(asked);
    let whole = Quantity::from_units(storage.value(), storage.format());
    Some(if whole == storage { storage } else { whole })
}

fn storage_class(claim: &PersistentVolumeClaim) -> &str {
    let annotated = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CLASS_ANNOTATION));
    let class = annotated.or_else(|| claim.spec.as_ref()?.storage_class_name.as_ref());
    class.map(String::as_str).unwrap_or_default()
}

/// The attributes classes that the claim has, wants, or is on its way to.
pub(super) fn classes(claim: &PersistentVolumeClaim) -> BTreeSet<&str> {
    let status = claim.status.as_ref();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let current = status.and_then(|status| status.current_volume_attributes_class_name.as_deref());
    let target =
        status.and_then(|status| status.modify_volume_status.as_ref()?.target_volume_attributes_class_name.as_deref());
    [wanted, current, target].into_iter().flatten().filter(|class| !class.is_empty()).collect()
}

pub(super) fn is_in_scope(claim: &PersistentVolumeClaim, scope: &ScopedResourceSelectorRequirement) -> bool {
    if scope.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let classes = classes(claim);
    if classes.is_empty() { selects(scope, None) } else { classes.iter().any(|class| selects(scope, Some(class))) }
}
