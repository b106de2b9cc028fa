//! Kubernetes Events about pods, with the container in the reference's field path as upstream has it.

use client::{Event, EventKind, EventRecorder};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use podlife::spec::field_path;

/// Cheap to clone. Telling never blocks and never fails.
#[derive(Clone)]
pub struct PodRecorder {
    recorder: EventRecorder,
}

impl PodRecorder {
    pub fn new(recorder: EventRecorder) -> Self {
        Self { recorder }
    }

    /// An empty `container` means the pod itself.
    pub fn normal(&self, pod: &Pod, container: &str, reason: &str, message: &str) {
        self.record(pod, container, EventKind::Normal, reason, message);
    }

    pub fn warning(&self, pod: &Pod, container: &str, reason: &str, message: &str) {
        self.record(pod, container, EventKind::Warning, reason, message);
    }

    fn record(&self, pod: &Pod, container: &str, kind: EventKind, reason: &str, message: &str) {
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: pod.metadata.name.clone(),
            namespace: pod.metadata.namespace.clone(),
            uid: pod.metadata.uid.clone(),
            resource_version: pod.metadata.resource_version.clone(),
            field_path: (!container.is_empty()).then(|| field_path(pod, container)),
        };
        self.recorder.record(Event { regarding, kind, reason: reason.to_owned(), message: message.to_owned() });
    }
}
