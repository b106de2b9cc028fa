//! The slow sweep: what no worker owns any more, images nobody uses when the disk fills, and the eviction of pods when
//! the node runs out of memory or disk.
//!
//! Input: every minute, the runtime's lists, directories, free space. Output: removals, evictions. Invariants: nothing of
//! a pod that has a worker is touched; an image in use or pinned is never removed; one eviction a round.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use podlife::Stage;
use podlife::memory::Verdict;
use podlife::resources::{QosClass, pod_requests, qos_class};
use podlife::spec::{is_critical, name, priority, uid};

use crate::cri::v1;
use crate::kubelet::Context;
use crate::machine::{observe_available_memory, observe_space};
use crate::pods::Pods;
use crate::thresholds::{Floor, Observed, Shortage};
use crate::worker::Snapshot;

const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// Pressure is looked at as often as upstream does.
const PRESSURE_EVERY: Duration = Duration::from_secs(10);
/// Images nobody uses are removed when less is free than this (upstream: above 85 % used) ...
const IMAGES_FREE_MIN: Floor = Floor::percent(15, 8 << 30);
/// ... until so much is free (upstream: 80 % used).
const IMAGES_FREE_AIM: Floor = Floor::percent(20, 12 << 30);
pub async fn run_garbage(context: Arc<Context>, pods: Pods) {
    let mut sweep = tokio::time::interval(SWEEP_EVERY);
    let mut pressure = tokio::time::interval(PRESSURE_EVERY);
    sweep.tick().await;
    loop {
        tokio::select! {
            _ = sweep.tick() => {
                if pods.is_synced() {
                    sweep_directories(&context, &pods);
                    sweep_images(&context).await;
                }
            }
            _ = pressure.tick() => relieve_pressure(&context, &pods),
        }
    }
}

/// What the node has too little of now, memory first.
pub fn observe_shortages(context: &Context) -> Vec<Shortage> {
    let observed = Observed {
        memory_free: observe_available_memory(),
        memory_bytes: context.machine.memory_bytes,
        nodefs: observe_space(&context.config.kubelet_dir),
        imagefs: observe_space(&context.config.runtime.root),
    };
    context.config.eviction_hard.shortages(&observed).collect()
}

fn relieve_pressure(context: &Context, pods: &Pods) {
    let shortages = observe_shortages(context);
    let Some(shortage) = shortages.first() else { return };
    let mut candidates = pods.snapshots();
    candidates.retain(|snapshot| matches!(snapshot.stage, Stage::Running | Stage::Initializing | Stage::Sandboxing));
    candidates.retain(|snapshot| !is_critical(&snapshot.pod));
    candidates.sort_by_key(eviction_order);
    if let Some(victim) = candidates.first() {
        let message = shortage.message();
        tracing::warn!(pod = name(&victim.pod), "evicting: {message}");
        context.recorder.warning(&victim.pod, "", "Evicted", &message);
        let verdict = Verdict::new("Evicted", message.clone()).disrupting(message);
        pods.evict(uid(&victim.pod), verdict, Duration::from_secs(1));
    }
}

/// BestEffort before Burstable before Guaranteed, low priority first, then the smallest request.
fn eviction_order(snapshot: &Snapshot) -> (QosClass, i32, i64) {
    (qos_class(&snapshot.pod), priority(&snapshot.pod), pod_requests(&snapshot.pod).1)
}

/// Directories of pods that nobody knows: left by a crash between the API's delete and ours.
fn sweep_directories(context: &Context, pods: &Pods) {
    let known = pods.snapshots().iter().map(|snapshot| uid(&snapshot.pod).to_owned()).collect::<HashSet<_>>();
    let list = |directory: &Path| {
        std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    for path in list(&context.config.kubelet_dir.join("pods")) {
        let Some(uid) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !known.contains(uid)
            && let Err(error) = crate::volumes::remove_pod_dir(&context.config.kubelet_dir, uid)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove an orphaned pod directory");
        }
    }
    for path in list(&context.config.pod_log_dir) {
        let Some(uid) = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit('_').next()) else {
            continue;
        };
        if !known.contains(uid)
            && let Err(error) = std::fs::remove_dir_all(&path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove an orphaned log directory");
        }
    }
    remove_dangling_log_links(&context.config.container_log_dir, "", "");
}

/// Links in /var/log/containers whose file is gone; of one pod, or of all if `name` is empty.
pub fn remove_dangling_log_links(directory: &Path, namespace: &str, name: &str) {
    let prefix = if name.is_empty() { String::new() } else { format!("{name}_{namespace}_") };
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    for path in entries.map(|entry| entry.path()) {
        let ours = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix));
        if ours
            && path.is_symlink()
            && !path.exists()
            && let Err(error) = std::fs::remove_file(&path)
        {
            tracing::warn!(%error, path = %path.display(), "cannot remove a log link");
        }
    }
}

async fn sweep_images(context: &Context) {
    let Some(space) = observe_space(&context.config.runtime.root) else { return };
    if space.free_bytes >= IMAGES_FREE_MIN.of(space.usable_bytes) {
        return;
    }
    let cri = &context.cri;
    let lists = tokio::try_join!(
        cri.list_images(v1::ListImagesRequest::default()),
        cri.list_containers(v1::ListContainersRequest::default())
    );
    let (images, containers) = match lists {
        Ok(lists) => lists,
        Err(error) => return tracing::warn!(%error, "the disk is short and the runtime does not list its images"),
    };
    let used = containers.containers.iter().flat_map(|container| {
        [Some(container.image_ref.clone()), container.image.as_ref().map(|image| image.image.clone())]
    });
    let used = used.flatten().collect::<HashSet<_>>();
    let mut target = IMAGES_FREE_AIM.of(space.usable_bytes).saturating_sub(space.free_bytes);
    for image in images.images {
        let names = image.repo_tags.iter().chain(&image.repo_digests).chain(std::iter::once(&image.id));
        let is_sandbox = image.repo_tags.contains(&context.config.runtime.sandbox_image);
        if image.pinned || is_sandbox || names.clone().any(|name| used.contains(name)) || target == 0 {
            continue;
        }
        let spec = v1::ImageSpec { image: image.id.clone(), ..Default::default() };
        match cri.remove_image(v1::RemoveImageRequest { image: Some(spec) }).await {
            Ok(_) => target = target.saturating_sub(image.size),
            Err(error) => tracing::warn!(%error, image = %image.id, "cannot remove image"),
        }
    }
}
