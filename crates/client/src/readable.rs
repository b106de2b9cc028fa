//! An object of a typed kind as the API prints it: with `null` for a time that OpenAPI requires and nobody has set.
//!
//! Invariant: whatever the API serves of a kind can be read as [`Readable`]; the struct alone refuses such a `null`, and one object
//! would end the watch of all. Kinds without required times are read straight into the struct.

use std::borrow::Cow;

use api::zero_time;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use reconcile::Object;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::Value;

/// See the module's text.
#[derive(Debug, Clone)]
pub(crate) struct Readable<K>(pub(crate) K);

impl<'de, K: Object> Deserialize<'de> for Readable<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !zero_time::may_occur(K::GROUP, K::VERSION, K::KIND) {
            return K::deserialize(deserializer).map(Self);
        }
        let object = Value::deserialize(deserializer)?;
        K::deserialize(&*zero_time::filled(&object)).map(Self).map_err(D::Error::custom)
    }
}

impl<K: Object> kube::Resource for Readable<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        K::GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        K::VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::URL_PATH_SEGMENT.into()
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.metadata_mut()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Pod, Service};
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_condition_without_a_time_can_be_read() {
        for condition in [json!({"type": "A", "lastTransitionTime": null}), json!({"type": "A"})] {
            let service = json!({"metadata": {"name": "s"}, "status": {"conditions": [condition]}});
            assert!(from_value::<Service>(service.clone()).is_err(), "the struct itself can't");
            let read: Readable<Service> = from_value(service).unwrap();
            let time = read.0.status.unwrap().conditions.unwrap()[0].last_transition_time.0;
            assert!(zero_time::is_zero(time), "{time}");
        }
        let pod: Readable<Pod> = from_value(json!({"metadata": {"name": "p"}})).unwrap();
        assert_eq!(kube::Resource::meta(&pod).name.as_deref(), Some("p"));
    }
}
