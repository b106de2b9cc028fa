//! Carrying out a plan's actions. Each long one becomes a task that reports back with a [`Message`].

use std::sync::Arc;
use std::time::Duration;

use podlife::memory::Busy;
use podlife::observed::RunState;
use podlife::plan::Action;
use podlife::spec::{find_container, grace_seconds, is_host_network, name, namespace, uid};
use podlife::{PodPlan, resources};

use super::start::{StartInputs, start_container};
use super::{Message, Worker};
use crate::cgroups;
use crate::cri::v1;
use crate::hooks::{HandlerTarget, run_hook};
use crate::observe::pod_log_directory;
use crate::sandbox_config::{SandboxSettings, derive_sandbox_config};
use crate::volumes::{pod_dir, remove_pod_dir};

/// What a container gets after SIGTERM even if its hook used up the grace period.
const GRACE_AFTER_HOOK_MIN: i64 = 2;

impl Worker {
    /// True: the pod is forgotten and the worker ends.
    pub(super) async fn act(&mut self, plan: &PodPlan) -> bool {
        for action in &plan.actions {
            match action {
                Action::Prepare => {
                    if self.volumes.is_none() {
                        self.spawn_volumes();
                    }
                }
                Action::CreateSandbox { attempt } => self.create_sandbox(*attempt),
                Action::StartContainer { name, attempt, sandbox_id, restart } => {
                    self.start(name, *attempt, sandbox_id, *restart);
                }
                Action::CancelStart { name } => {
                    if let Some(task) = self.tasks.remove(name) {
                        task.abort();
                    }
                    self.memory.containers.entry(name.clone()).or_default().busy = None;
                    // What the start had reached is only seen by looking.
                    self.wake.notify_one();
                }
                Action::StopContainer { name, id, grace_seconds, pre_stop, message } => {
                    self.stop(name, id, *grace_seconds, *pre_stop, message);
                }
                Action::RemoveContainer { name, id } => self.remove(name, id),
                Action::StopSandbox { id } => self.stop_sandbox(id),
                Action::CleanUp => self.clean_up(),
                Action::DeletePod => {
                    self.memory.delete_sent = true;
                    self.wanted.send_modify(|wanted| wanted.delete = true);
                }
                Action::Forget => {
                    self.forget().await;
                    return true;
                }
                Action::ReportBackOff { name } => self.report_back_off(name),
            }
        }
        false
    }

    fn create_sandbox(&mut self, attempt: u32) {
        self.memory.sandbox_busy = true;
        let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
        let old = self.observed.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect::<Vec<_>>();
        if attempt > 0 {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.context.recorder.normal(&self.pod, "", "SandboxChanged", message);
        }
        tokio::spawn(async move {
            let outcome = async {
                for id in old {
                    let request = v1::StopPodSandboxRequest { pod_sandbox_id: id };
                    context.cri.stop_pod_sandbox(request).await.map_err(|status| status.message().to_owned())?;
                }
                let config = context.sandbox_config(&pod, attempt);
                prepare_directories(&context, &pod).map_err(|error| error.to_string())?;
                let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
                let run = context.cri.run_pod_sandbox(request).await;
                let sandbox_id = run.map_err(|status| status.message().to_owned())?.pod_sandbox_id;
                context.owners.insert(&sandbox_id, uid(&pod));
                Ok(())
            }
            .await;
            report(&sender, Message::Sandbox(outcome)).await;
        });
    }

    fn start(&mut self, container: &str, attempt: u32, sandbox_id: &str, restart: bool) {
        let Some(spec) = find_container(&self.pod, container) else { return };
        self.set_busy(container, Busy::Starting);
        self.backoff_told.remove(container);
        let memory = self.memory.containers.entry(container.to_owned()).or_default();
        if restart {
            memory.crash_backoff.advance(self.context.clock.now());
        }
        let sandbox = self.observed.sandboxes.iter().find(|sandbox| sandbox.id == sandbox_id);
        let pod_ips = if is_host_network(&self.pod) {
            self.context.facts.host_ips.clone()
        } else {
            sandbox.map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
        };
        let targets = podlife::spec::pod_spec(&self.pod).ephemeral_containers.iter().flatten();
        let target = targets.into_iter().find(|e| e.name == container).and_then(|e| e.target_container_name.clone());
        let target_id = target.and_then(|target| {
            let running = self.observed.newest(&target).filter(|record| record.state == RunState::Running);
            running.map(|record| record.id.clone())
        });
        let inputs = StartInputs {
            context: self.context.clone(),
            pod: self.pod.clone(),
            container: spec,
            attempt,
            sandbox_id: sandbox_id.to_owned(),
            sandbox_attempt: sandbox.map_or(0, |sandbox| sandbox.attempt),
            pod_ips,
            target_id,
            pull_backoff: memory.pull_backoff.clone(),
            sender: self.sender.clone(),
        };
        let sender = self.sender.clone();
        let name = container.to_owned();
        let task = tokio::spawn(async move {
            let outcome = start_container(inputs).await;
            report(&sender, Message::Started { name, outcome }).await;
        });
        self.tasks.insert(container.to_owned(), task.abort_handle());
    }

    fn stop(&mut self, container: &str, id: &str, grace_seconds: i64, pre_stop: bool, message: &str) {
        let now = self.context.clock.now();
        let grace = Duration::from_secs(grace_seconds.unsigned_abs());
        let deadline = now.checked_add(grace).unwrap_or(jiff::Timestamp::MAX);
        self.set_busy(container, Busy::Stopping { deadline });
        if let Some(earlier) = self.tasks.remove(container) {
            earlier.abort();
        }
        self.context.recorder.normal(&self.pod, container, "Killing", message);
        let hook = find_container(&self.pod, container)
            .filter(|spec| pre_stop && spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some()));
        let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
        let pod_ip = self.previous.pod_ip.clone().unwrap_or_default();
        let (name, id) = (container.to_owned(), id.to_owned());
        let task = tokio::spawn(async move {
            let started = tokio::time::Instant::now();
            let mut left = grace_seconds;
            if let Some(spec) = hook {
                let target = HandlerTarget {
                    cri: &context.cri,
                    pod: &pod,
                    container: &spec,
                    container_id: &id,
                    pod_ip: &pod_ip,
                };
                run_pre_stop(&target, &context, grace).await;
                let used = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
                left = grace_seconds.saturating_sub(used).max(GRACE_AFTER_HOOK_MIN.min(grace_seconds));
            }
            if let Err(error) = context.cri.stop_container(&id, left).await {
                tracing::warn!(%error, container = %name, "cannot stop container");
                // The plan sees it running still and asks again; not at once.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            report(&sender, Message::Stopped { name }).await;
        });
        self.tasks.insert(container.to_owned(), task.abort_handle());
    }

    fn remove(&mut self, container: &str, id: &str) {
        self.set_busy(container, Busy::Removing);
        let (context, sender) = (self.context.clone(), self.sender.clone());
        let (name, id) = (container.to_owned(), id.to_owned());
        tokio::spawn(async move {
            let request = v1::RemoveContainerRequest { container_id: id };
            if let Err(error) = context.cri.remove_container(request).await {
                tracing::warn!(%error, container = %name, "cannot remove container");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            report(&sender, Message::Removed { name }).await;
        });
    }

    fn stop_sandbox(&mut self, id: &str) {
        self.memory.sandbox_busy = true;
        let (context, sender, id) = (self.context.clone(), self.sender.clone(), id.to_owned());
        tokio::spawn(async move {
            let request = v1::StopPodSandboxRequest { pod_sandbox_id: id };
            if let Err(error) = context.cri.stop_pod_sandbox(request).await {
                tracing::warn!(%error, "cannot stop sandbox");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            report(&sender, Message::SandboxStopped).await;
        });
    }

    fn clean_up(&mut self) {
        self.memory.cleaning = true;
        if let Some(volumes) = self.volumes.take() {
            volumes.abort();
        }
        let (context, pod, sender) = (self.context.clone(), self.pod.clone(), self.sender.clone());
        tokio::spawn(async move {
            let directory = pod_dir(&context.config.kubelet_dir, uid(&pod));
            let removal = tokio::task::spawn_blocking(move || {
                crate::runtime::teardown::unmount_below(&[&directory]);
                for part in ["volumes", "volume-subpaths"] {
                    match std::fs::remove_dir_all(directory.join(part)) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                        _ => {}
                    }
                }
                Ok(())
            });
            if let Ok(Err(error)) = removal.await {
                tracing::warn!(%error, pod = name(&pod), "cannot remove volumes");
            }
            cgroups::remove_cgroup(&resources::pod_cgroup(&context.config.cgroup_root, &pod)).await;
            report(&sender, Message::Cleaned).await;
        });
    }

    /// Nothing of the pod lives; what remains is removed, best effort: the slow sweep of `garbage` finds what stays.
    async fn forget(&mut self) {
        for sandbox in &self.observed.sandboxes {
            let request = v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() };
            if let Err(error) = self.context.cri.remove_pod_sandbox(request).await {
                tracing::warn!(%error, pod = name(&self.pod), "cannot remove sandbox");
            }
        }
        let config = self.context.config.clone();
        let pod = self.pod.clone();
        let removal = tokio::task::spawn_blocking(move || {
            if let Err(error) = remove_pod_dir(&config.kubelet_dir, uid(&pod)) {
                tracing::warn!(%error, pod = name(&pod), "cannot remove the pod's directory");
            }
            let logs = pod_log_directory(&config.pod_log_dir, namespace(&pod), name(&pod), uid(&pod));
            if let Err(error) = std::fs::remove_dir_all(&logs)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, pod = name(&pod), "cannot remove the pod's logs");
            }
            crate::garbage::remove_dangling_log_links(&config.container_log_dir, namespace(&pod), name(&pod));
        });
        if let Err(error) = removal.await {
            tracing::warn!(%error, "removal of a pod's directories");
        }
    }

    /// One event a reason, not one a plan.
    fn report_back_off(&mut self, container: &str) {
        let Some(status) = self.previous_container(container) else { return };
        let Some(waiting) = status.state.as_ref().and_then(|state| state.waiting.as_ref()) else { return };
        let reason = waiting.reason.clone().unwrap_or_default();
        if !matches!(reason.as_str(), "CrashLoopBackOff" | "ImagePullBackOff") {
            return;
        }
        let message = match reason.as_str() {
            "ImagePullBackOff" => format!("Back-off pulling image \"{}\"", status.image),
            _ => format!(
                "Back-off restarting failed container {container} in pod {}",
                podlife::spec::pod_label(&self.pod)
            ),
        };
        let key = format!("{reason}/{}", status.restart_count);
        if self.backoff_told.insert(container.to_owned(), key.clone()).as_deref() != Some(&key) {
            self.context.recorder.warning(&self.pod, container, "BackOff", &message);
        }
    }

    fn previous_container(&self, container: &str) -> Option<&k8s_openapi::api::core::v1::ContainerStatus> {
        let previous = &self.previous;
        let lists =
            [&previous.container_statuses, &previous.init_container_statuses, &previous.ephemeral_container_statuses];
        lists.into_iter().flatten().flatten().find(|status| status.name == container)
    }
}

/// Only a worker that ended does not take its messages any more.
pub(super) async fn report(sender: &tokio::sync::mpsc::Sender<Message>, message: Message) {
    if sender.send(message).await.is_err() {
        tracing::trace!("a worker ended before its action did");
    }
}

async fn run_pre_stop(target: &HandlerTarget<'_>, context: &Arc<crate::kubelet::Context>, grace: Duration) {
    let Some(handler) = target.container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref()) else {
        return;
    };
    let container = &target.container.name;
    match tokio::time::timeout(grace, run_hook(target, handler)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::info!(%error, pod = name(target.pod), "preStop hook failed");
            context.recorder.warning(target.pod, container, "FailedPreStopHook", "PreStopHook failed");
        }
        Err(_) => tracing::info!(pod = name(target.pod), "preStop hook did not end within the grace period"),
    }
}

/// The pod's cgroup, log directory and data directory.
fn prepare_directories(
    context: &crate::kubelet::Context,
    pod: &k8s_openapi::api::core::v1::Pod,
) -> std::io::Result<()> {
    debug_assert!(grace_seconds(pod) >= 0);
    let config = &context.config;
    std::fs::create_dir_all(pod_dir(&config.kubelet_dir, uid(pod)))?;
    std::fs::create_dir_all(pod_log_directory(&config.pod_log_dir, namespace(pod), name(pod), uid(pod)))?;
    let cgroup = resources::pod_cgroup(&config.cgroup_root, pod);
    cgroups::apply_cgroup(&cgroup, &resources::pod_limits(pod))
}

impl crate::kubelet::Context {
    /// The sandbox's configuration; containers of the sandbox are created with the same one.
    pub(crate) fn sandbox_config(&self, pod: &k8s_openapi::api::core::v1::Pod, attempt: u32) -> v1::PodSandboxConfig {
        let settings = SandboxSettings {
            cgroup_root: &self.config.cgroup_root,
            pod_log_dir: &self.config.pod_log_dir,
            cluster_domain: &self.config.cluster_domain,
            seccomp_dir: &self.config.kubelet_dir.join("seccomp"),
        };
        derive_sandbox_config(pod, attempt, &self.resolver_of(pod), &settings)
    }
}
