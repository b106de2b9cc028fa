//! Priority: the number behind a pod's priority class.
//!
//! In: pod creates and updates, priority classes. Out: `priority`, `preemptionPolicy` and `priorityClassName` resolved; 403
//! for a class that is not there, for a number that differs from the class's, and for a second default class.
//!
//! The two system classes count even before their objects are written.

use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{is_core, refuse, text};
use crate::chain::{Admission, AdmissionRequest, Operation};
use crate::error::ApiError;
use crate::reader::Reader;

const GROUP: &str = "scheduling.k8s.io";
const SYSTEM_CLASSES: [(&str, i64); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// See the module.
pub struct Priority;

impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn mutate<'a>(
        &'a self,
        request: &'a mut AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move {
            if is_core(request, "pods", Operation::Create) {
                resolve(request, reader)
            } else {
                if is_core(request, "pods", Operation::Update) {
                    keep_resolved(request);
                }
                Ok(())
            }
        })
    }

    fn validate<'a>(
        &'a self,
        request: &'a AdmissionRequest,
        reader: &'a dyn Reader,
    ) -> BoxFuture<'a, Result<(), ApiError>> {
        Box::pin(async move { check_single_default(request, reader) })
    }
}

/// Name, number and preemption policy of a class.
struct Class {
    name: String,
    value: i64,
    preemption_policy: String,
}

impl Class {
    fn parse(class: &Value) -> Self {
        Self {
            name: text(&class["metadata"]["name"]).to_owned(),
            value: class["value"].as_i64().unwrap_or_default(),
            preemption_policy: class["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority").to_owned(),
        }
    }
}

fn resolve(request: &mut AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    let Some(spec) = request.object.as_ref().map(|pod| &pod["spec"]) else { return Ok(()) };
    let wanted = text(&spec["priorityClassName"]);
    let class = if wanted.is_empty() {
        default_class(reader)
    } else {
        find_class(wanted, reader)
            .ok_or_else(|| refuse(request, &format!("no PriorityClass with name {wanted} was found")))?
    };
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != class.value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.value
        );
        return Err(refuse(request, &why));
    }
    if let Some(given) = spec["preemptionPolicy"].as_str().filter(|given| *given != class.preemption_policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.preemption_policy
        );
        return Err(refuse(request, &why));
    }
    if let Some(spec) = request.object.as_mut().and_then(|pod| pod["spec"].as_object_mut()) {
        spec.insert("priority".to_owned(), class.value.into());
        spec.insert("preemptionPolicy".to_owned(), class.preemption_policy.into());
        if !class.name.is_empty() {
            spec.insert("priorityClassName".to_owned(), class.name.into());
        }
    }
    Ok(())
}

fn find_class(name: &str, reader: &dyn Reader) -> Option<Class> {
    if let Some(class) = reader.get(GROUP, "priorityclasses", "", name) {
        return Some(Class::parse(&class));
    }
    let (name, value) = SYSTEM_CLASSES.iter().find(|(system, _)| *system == name)?;
    Some(Class::parse(&json!({"metadata": {"name": name}, "value": value})))
}

/// The lowest of the default classes; there is more than one only after a race.
fn default_class(reader: &dyn Reader) -> Class {
    let classes = reader.list(GROUP, "priorityclasses", "");
    let defaults = classes.iter().filter(|class| class["globalDefault"] == true).map(|class| Class::parse(class));
    defaults.min_by_key(|class| class.value).unwrap_or_else(|| Class::parse(&Value::Null))
}

/// An update from a client that does not know the resolved fields keeps them.
fn keep_resolved(request: &mut AdmissionRequest) {
    let (Some(pod), Some(old)) = (&mut request.object, &request.old_object) else { return };
    for field in ["priority", "preemptionPolicy"] {
        let kept = &old["spec"][field];
        if pod["spec"][field].is_null() && !kept.is_null() {
            pod["spec"][field] = kept.clone();
        }
    }
}

fn check_single_default(request: &AdmissionRequest, reader: &dyn Reader) -> Result<(), ApiError> {
    let writes = matches!(request.operation, Operation::Create | Operation::Update);
    let concerned = request.group == GROUP && request.resource == "priorityclasses" && writes;
    let Some(class) = request.object.as_ref().filter(|class| concerned && class["globalDefault"] == true) else {
        return Ok(());
    };
    let classes = reader.list(GROUP, "priorityclasses", "");
    let mut others = classes.iter().filter(|other| other["metadata"]["name"] != class["metadata"]["name"]);
    match others.find(|other| other["globalDefault"] == true) {
        None => Ok(()),
        Some(other) => {
            let name = text(&other["metadata"]["name"]);
            let why = format!("PriorityClass {name} is already marked as default. Only one default can exist");
            Err(refuse(request, &why))
        }
    }
}
