//! Starting one container: image, environment, configuration, create, start, postStart.
//!
//! Input: [`StartInputs`]. Output: nothing, or the waiting reason that its status shows. Invariant: aborted at any point
//! it leaves at most a created or running instance, which the next look finds.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use podlife::backoff::Backoff;
use podlife::memory::StartFailure;
use podlife::spec::{name, namespace};
use tokio::sync::mpsc;

use super::Message;
use super::actions::report;
use crate::container_config::{ContainerInputs, prepare_container};
use crate::cri::v1;
use crate::env_vars::{EnvSources, resolve_env};
use crate::hooks::{HandlerTarget, run_hook};
use crate::images::{ImageFailure, ImageRequest};
use crate::kubelet::Context;

/// Retry of everything that is not an image: configuration that may come to be right.
const RETRY: Duration = Duration::from_secs(5);

pub(super) struct StartInputs {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    pub(super) container: Container,
    pub(super) attempt: u32,
    pub(super) sandbox_id: String,
    pub(super) sandbox_attempt: u32,
    pub(super) pod_ips: Vec<String>,
    pub(super) target_id: Option<String>,
    /// Of the image's pulls; its next delay applies if this one fails.
    pub(super) pull_backoff: Backoff,
    pub(super) sender: mpsc::Sender<Message>,
}

pub(super) async fn start_container(inputs: StartInputs) -> Result<(), StartFailure> {
    let sandbox_config = inputs.context.sandbox_config(&inputs.pod, inputs.sandbox_attempt);
    let config = configure(&inputs, &sandbox_config).await?;
    let StartInputs { context, pod, container, .. } = &inputs;
    let log_file = format!("{}/{}", sandbox_config.log_directory, config.log_path);
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: inputs.sandbox_id.clone(),
        config: Some(config),
        sandbox_config: Some(sandbox_config),
    };
    let created = context.cri.create_container(request).await;
    let container_id = created.map_err(|status| fail(&inputs, "CreateContainerError", status.message()))?.container_id;
    context.owners.insert(&container_id, podlife::spec::uid(pod));
    context.recorder.normal(pod, &container.name, "Created", "Container created");
    let request = v1::StartContainerRequest { container_id: container_id.clone() };
    let started = context.cri.start_container(request).await;
    started.map_err(|status| fail(&inputs, "RunContainerError", status.message()))?;
    context.recorder.normal(pod, &container.name, "Started", "Container started");
    link_log(context, pod, &container.name, &container_id, &log_file);
    run_post_start(&inputs, &container_id).await
}

async fn configure(
    inputs: &StartInputs,
    sandbox_config: &v1::PodSandboxConfig,
) -> Result<v1::ContainerConfig, StartFailure> {
    let StartInputs { context, pod, container, .. } = inputs;
    let request = ImageRequest {
        pod,
        container,
        sandbox: sandbox_config,
        objects: &context.objects,
        recorder: &context.recorder,
    };
    let image = context.images.ensure(&request).await;
    let image = image.map_err(|failure| image_failure(inputs, failure))?;
    let mut facts = context.volumes.facts.clone();
    facts.pod_ips.clone_from(&inputs.pod_ips);
    facts.host_ips.clone_from(&context.facts.host_ips);
    let sources = EnvSources { objects: &context.objects, services: context.services.list(), facts: &facts };
    let env = resolve_env(pod, container, &sources).await;
    let env = env.map_err(|message| fail(inputs, "CreateContainerConfigError", &message))?;
    let prepared = prepare_container(&ContainerInputs {
        config: &context.config,
        pod,
        container,
        attempt: inputs.attempt,
        image: &image,
        env: &env,
        pod_ips: &inputs.pod_ips,
        target_id: inputs.target_id.as_deref(),
        node_memory_bytes: i64::try_from(context.machine.memory_bytes).unwrap_or(i64::MAX),
    });
    prepared.map_err(|message| fail(inputs, "CreateContainerConfigError", &message))
}

fn fail(inputs: &StartInputs, reason: &str, message: &str) -> StartFailure {
    let StartInputs { context, pod, container, .. } = inputs;
    context.recorder.warning(pod, &container.name, "Failed", &format!("Error: {message}"));
    let now = context.clock.now();
    StartFailure {
        reason: reason.to_owned(),
        message: message.to_owned(),
        failed_at: now,
        retry_at: now.checked_add(RETRY).unwrap_or(now),
    }
}

fn image_failure(inputs: &StartInputs, failure: ImageFailure) -> StartFailure {
    let now = inputs.context.clock.now();
    let mut backoff = inputs.pull_backoff.clone();
    backoff.advance(now);
    StartFailure {
        reason: failure.reason.to_owned(),
        message: failure.message,
        failed_at: now,
        retry_at: now.checked_add(backoff.delay()).unwrap_or(now),
    }
}

/// The name under which log collectors look for the file.
fn link_log(context: &Context, pod: &Pod, container: &str, id: &str, log_file: &str) {
    let file = format!("{}_{}_{container}-{id}.log", name(pod), namespace(pod));
    let link = context.config.container_log_dir.join(file);
    if let Err(error) = std::os::unix::fs::symlink(log_file, &link)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        tracing::warn!(%error, link = %link.display(), "cannot link the log");
    }
}

async fn run_post_start(inputs: &StartInputs, container_id: &str) -> Result<(), StartFailure> {
    let StartInputs { context, pod, container, .. } = inputs;
    let Some(handler) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
        return Ok(());
    };
    let pod_ip = inputs.pod_ips.first().map(String::as_str).unwrap_or_default();
    let target = HandlerTarget { cri: &context.cri, pod, container, container_id, pod_ip };
    let Err(message) = run_hook(&target, handler).await else { return Ok(()) };
    context.recorder.warning(pod, &container.name, "FailedPostStartHook", "PostStartHook failed");
    let killed = Message::HookFailed { name: container.name.clone(), container_id: container_id.to_owned() };
    report(&inputs.sender, killed).await;
    let now = context.clock.now();
    Err(StartFailure { reason: "PostStartHookError".to_owned(), message, failed_at: now, retry_at: now })
}
