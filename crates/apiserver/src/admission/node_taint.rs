//! TaintNodesByCondition: a new node takes no pods before it has shown to be ready.
//!
//! In: node creates. Out: the taint `node.kubernetes.io/not-ready:NoSchedule`, which the node controller takes away.

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{is_core, list_mut};
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

/// See the module.
pub struct TaintNodesByCondition;

impl Admission for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        _reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if is_core(request, "nodes", Operation::Create)
                && let Some(node) = &mut request.object
            {
                if !node["spec"].is_object() {
                    node["spec"] = json!({});
                }
                let same = |taint: &Value| taint["key"] == KEY && taint["effect"] == EFFECT;
                if let Some(taints) = list_mut(&mut node["spec"], "taints")
                    && !taints.iter().any(same)
                {
                    taints.push(json!({"key": KEY, "effect": EFFECT}));
                }
            }
            Ok(())
        })
    }
}
