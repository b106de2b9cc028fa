//! StorageObjectInUseProtection: claims and volumes do not go while they are in use.
//!
//! In: creates of claims and volumes. Out: the finalizer that the protection controllers take off when nobody uses them.

use futures::future::BoxFuture;
use semantics::object_meta::{CLAIM_PROTECTION, VOLUME_PROTECTION};
use serde_json::Value;

use super::{is_core, list_mut};
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const FINALIZERS: [(&str, &str); 2] =
    [("persistentvolumeclaims", CLAIM_PROTECTION), ("persistentvolumes", VOLUME_PROTECTION)];

/// See the module.
pub struct StorageObjectInUseProtection;

impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        _reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let row = FINALIZERS.iter().find(|(resource, _)| is_core(request, resource, Operation::Create));
            if let (Some((_, finalizer)), Some(object)) = (row, &mut request.object)
                && let Some(finalizers) = list_mut(&mut object["metadata"], "finalizers")
                && !finalizers.iter().any(|name| name == finalizer)
            {
                finalizers.push(Value::from(*finalizer));
            }
            Ok(())
        })
    }
}
