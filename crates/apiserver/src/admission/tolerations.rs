//! DefaultTolerationSeconds: a pod leaves a lost node after five minutes unless it says otherwise.
//!
//! In: pod creates and updates. Out: the two tolerations added, if the pod has none for the taint.

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{is_core, list_mut, text};
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const SECONDS: i64 = 300;

/// See the module.
pub struct DefaultTolerationSeconds;

impl Admission for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        _reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            let concerned = is_core(request, "pods", Operation::Create) || is_core(request, "pods", Operation::Update);
            if concerned && let Some(pod) = &mut request.object {
                add_tolerations(&mut pod["spec"]);
            }
            Ok(())
        })
    }
}

fn add_tolerations(spec: &mut Value) {
    let tolerates = |list: &[Value], taint: &str| {
        list.iter().any(|toleration| {
            matches!(text(&toleration["key"]), key if key == taint || key.is_empty())
                && matches!(text(&toleration["effect"]), "NoExecute" | "")
        })
    };
    let existing = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for taint in TAINTS.iter().filter(|taint| !tolerates(&existing, taint)) {
        if let Some(list) = list_mut(spec, "tolerations") {
            list.push(json!({
                "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
            }));
        }
    }
}
