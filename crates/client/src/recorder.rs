//! Events for users: [`reconcile::Event`] -> core/v1 Event objects, with equal ones counted instead of repeated.
//!
//! As upstream's recorder: an event equal to one of the last ten minutes raises that Event's `count` by a patch; each
//! object may cause 25 at once and one more every five minutes. Invariant: telling never blocks or fails a component;
//! when the queue of 1,000 is full, or the API refuses, the event is dropped (and logged).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use k8s_openapi::api::core::v1::{Event as CoreEvent, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use reconcile::{Event, EventKind, Object};
use serde_json::json;
use tokio::sync::mpsc;

const QUEUE_MAX: usize = 1000;
/// Events remembered for counting.
const KNOWN_MAX: usize = 4096;
const EQUAL_WITHIN: Duration = Duration::from_secs(600);
const BURST: u32 = 25;
const REFILL_EVERY: Duration = Duration::from_secs(300);

/// Cheap to clone; see the module's text.
#[derive(Debug, Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<Event>,
}

impl EventRecorder {
    /// Starts a recorder. `component` and `host` become the Events' source; `host` is empty off the nodes.
    pub fn spawn(client: Client, component: &str, host: &str, clock: Arc<dyn Clock>) -> Self {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        let source =
            EventSource { component: Some(component.to_owned()), host: (!host.is_empty()).then(|| host.to_owned()) };
        tokio::spawn(run_recorder(Recorder { client, source, clock, known: Known::default() }, events));
        Self { queue }
    }

    /// Tells of `event`, soon.
    pub fn record(&self, event: Event) {
        if let Err(error) = self.queue.try_send(event) {
            tracing::debug!(%error, "event dropped");
        }
    }

    pub fn normal<K: Object>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.record(Event::normal(object, reason, message));
    }

    pub fn warning<K: Object>(&self, object: &K, reason: &str, message: impl Into<String>) {
        self.record(Event::warning(object, reason, message));
    }
}

struct Recorder {
    client: Client,
    source: EventSource,
    clock: Arc<dyn Clock>,
    known: Known,
}

async fn run_recorder(mut recorder: Recorder, mut events: mpsc::Receiver<Event>) {
    while let Some(event) = events.recv().await {
        if let Err(error) = recorder.apply_event(&event).await {
            tracing::debug!(reason = %event.reason, %error, "event not recorded");
        }
    }
}

impl Recorder {
    async fn apply_event(&mut self, event: &Event) -> Result<(), kube::Error> {
        let now = self.clock.monotonic();
        let namespace =
            event.regarding.namespace.clone().filter(|ns| !ns.is_empty()).unwrap_or_else(|| "default".to_owned());
        let api: Api<CoreEvent> = Api::namespaced(self.client.clone(), &namespace);
        match self.known.decide_event(event, now) {
            Decision::Drop => Ok(()),
            Decision::Create => self.apply_create(&api, event, &namespace, now).await,
            Decision::Count { name, count } => {
                let patch =
                    json!({ "count": count, "lastTimestamp": Time(self.clock.now()), "message": event.message });
                match api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
                    // It has expired: begin a new one.
                    Err(kube::Error::Api(status)) if status.code == 404 => {
                        self.apply_create(&api, event, &namespace, now).await
                    }
                    other => other.map(|_| ()),
                }
            }
        }
    }

    async fn apply_create(
        &mut self,
        api: &Api<CoreEvent>,
        event: &Event,
        namespace: &str,
        now: Duration,
    ) -> Result<(), kube::Error> {
        let object = self.derive_object(event, namespace);
        let name = object.metadata.name.clone().unwrap_or_default();
        api.create(&PostParams::default(), &object).await?;
        self.known.created(event, name, now);
        Ok(())
    }

    fn derive_object(&self, event: &Event, namespace: &str) -> CoreEvent {
        let now = self.clock.now();
        let regarding = event.regarding.name.as_deref().unwrap_or_default();
        CoreEvent {
            metadata: ObjectMeta {
                name: Some(format!("{regarding}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            involved_object: event.regarding.clone(),
            type_: Some(kind_name(event.kind).to_owned()),
            reason: Some(event.reason.clone()),
            message: Some(event.message.clone()),
            source: Some(self.source.clone()),
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            count: Some(1),
            ..CoreEvent::default()
        }
    }
}

fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Normal => "Normal",
        EventKind::Warning => "Warning",
    }
}

/// Which Events exist, and how many each object may still cause.
#[derive(Debug, Default)]
struct Known {
    events: HashMap<String, KnownEvent>,
    /// Oldest first; bounds `events` and `allowances`.
    order: VecDeque<String>,
    allowances: HashMap<String, Allowance>,
    allowance_order: VecDeque<String>,
}

#[derive(Debug)]
struct KnownEvent {
    name: String,
    count: i32,
    last: Duration,
}

#[derive(Debug)]
struct Allowance {
    left: u32,
    refilled: Duration,
}

#[derive(Debug, PartialEq)]
enum Decision {
    Create,
    Count { name: String, count: i32 },
    Drop,
}

impl Known {
    fn decide_event(&mut self, event: &Event, now: Duration) -> Decision {
        if !self.take_allowance(&derive_object_key(&event.regarding), now) {
            return Decision::Drop;
        }
        match self.events.get_mut(&derive_event_key(event)) {
            Some(known) if now.saturating_sub(known.last) < EQUAL_WITHIN => {
                known.count += 1;
                known.last = now;
                Decision::Count { name: known.name.clone(), count: known.count }
            }
            _ => Decision::Create,
        }
    }

    fn created(&mut self, event: &Event, name: String, now: Duration) {
        let key = derive_event_key(event);
        if self.events.insert(key.clone(), KnownEvent { name, count: 1, last: now }).is_none() {
            self.order.push_back(key);
        }
        while self.order.len() > KNOWN_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.events.remove(&oldest);
            }
        }
    }

    fn take_allowance(&mut self, object: &str, now: Duration) -> bool {
        if !self.allowances.contains_key(object) {
            self.allowances.insert(object.to_owned(), Allowance { left: BURST, refilled: now });
            self.allowance_order.push_back(object.to_owned());
            if self.allowance_order.len() > KNOWN_MAX
                && let Some(oldest) = self.allowance_order.pop_front()
            {
                self.allowances.remove(&oldest);
            }
        }
        let Some(allowance) = self.allowances.get_mut(object) else { return true };
        let periods = now.saturating_sub(allowance.refilled).as_secs() / REFILL_EVERY.as_secs();
        if periods > 0 {
            allowance.left = allowance.left.saturating_add(u32::try_from(periods).unwrap_or(BURST)).min(BURST);
            allowance.refilled = now;
        }
        let allowed = allowance.left > 0;
        allowance.left = allowance.left.saturating_sub(1);
        allowed
    }
}

fn derive_object_key(object: &ObjectReference) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    [part(&object.kind), part(&object.namespace), part(&object.name), part(&object.uid), part(&object.api_version)]
        .join("\u{0}")
}

fn derive_event_key(event: &Event) -> String {
    let field_path = event.regarding.field_path.as_deref().unwrap_or_default();
    [&derive_object_key(&event.regarding), field_path, kind_name(event.kind), &event.reason, &event.message]
        .join("\u{0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(message: &str) -> Event {
        let regarding = ObjectReference { name: Some("web".to_owned()), ..ObjectReference::default() };
        Event { regarding, kind: EventKind::Normal, reason: "Pulled".to_owned(), message: message.to_owned() }
    }

    #[test]
    fn equal_events_are_counted_for_ten_minutes() {
        let mut known = Known::default();
        let second = Duration::from_secs(1);
        assert_eq!(known.decide_event(&event("m"), second), Decision::Create);
        known.created(&event("m"), "web.1".to_owned(), second);
        assert_eq!(known.decide_event(&event("m"), second), Decision::Count { name: "web.1".to_owned(), count: 2 });
        assert_eq!(known.decide_event(&event("other"), second), Decision::Create);
        assert_eq!(known.decide_event(&event("m"), second + EQUAL_WITHIN), Decision::Create);
    }

    #[test]
    fn one_object_may_cause_25_at_once_and_one_more_in_five_minutes() {
        let mut known = Known::default();
        let told =
            |known: &mut Known, now| (0..40).filter(|_| known.decide_event(&event("m"), now) != Decision::Drop).count();
        assert_eq!(told(&mut known, Duration::ZERO), 25);
        assert_eq!(told(&mut known, REFILL_EVERY), 1);
    }
}
