//! Wake-ups from the runtime: containerd's event stream. Input: /tasks/exit. Output: woken
//! workers. Invariant: a broken stream is re-opened and followed by waking everyone, so that no exit is missed. A runtime
//! without this service (CRI-O) leaves the relist of `pods` alone in charge.

use std::time::Duration;

use crate::cri::Cri;
use crate::cri::containerd::events_client::EventsClient;
use crate::cri::containerd::{SubscribeRequest, TaskEvent};
use crate::pods::Pods;
use prost::Message as _;

const RETRY: Duration = Duration::from_secs(1);
/// What ends a container; starts are ours and need no telling.
const TOPICS: [&str; 1] = ["/tasks/exit"];

pub async fn run_events(cri: Cri, pods: Pods) {
    loop {
        match follow(&cri, &pods).await {
            Err(status) if status.code() == tonic::Code::Unimplemented => {
                tracing::info!("the runtime has no containerd events; relying on the relist");
                return;
            }
            Err(status) => tracing::debug!(%status, "runtime events interrupted"),
            Ok(()) => tracing::debug!("runtime events ended"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow(cri: &Cri, pods: &Pods) -> Result<(), tonic::Status> {
    let filters = TOPICS.iter().map(|topic| format!("namespace==k8s.io,topic==\"{topic}\"")).collect();
    let mut stream = EventsClient::new(cri.channel()).subscribe(SubscribeRequest { filters }).await?.into_inner();
    tracing::debug!("following the runtime's events");
    pods.wake_all();
    while let Some(envelope) = stream.message().await? {
        tracing::trace!(topic = %envelope.topic, "runtime event");
        let Some(event) = envelope.event else { continue };
        let Ok(task) = TaskEvent::decode(event.value.as_slice()) else { continue };
        // An exec's end is not the container's.
        if task.id == task.container_id {
            pods.tell_exit(&task.container_id);
        }
    }
    Ok(())
}
