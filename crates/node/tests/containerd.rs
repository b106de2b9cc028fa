//! The runtime's life on the real containerd and runc: start, import, a sandbox, attach, death and restart of containerd,
//! removal of everything. Needs root; without it the test says so and does nothing.
//!
//! The image is made here: one ELF file of a few instructions that waits for signals for ever.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use node::cgroups::remove_cgroup;
use node::cri::{Cri, v1};
use node::observe::{POD_UID, Remembered, observe_pod};
use node::runtime::teardown::stop_runtime;
use node::runtime::{import::import_images, start_runtime};
use node::{NodeConfig, RuntimeConfig};
use tokio_util::sync::CancellationToken;

const IMAGE: &str = "registry.holdfast.internal/test-pause:1";

/// The test's own root of cgroups, beside whatever else runs on this machine.
fn cgroup() -> String {
    format!("/hf-node-{}", std::process::id())
}

/// x86-64 Linux: `loop: mov eax, 34 (pause); syscall; jmp loop`, with one loadable segment.
fn pause_elf() -> Vec<u8> {
    let code = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
    let base = 0x40_0000_u64;
    let entry = base + 64 + 56;
    let size = (64 + 56 + code.len()) as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    out.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for value in [entry, 64, 0] {
        out.extend(value.to_le_bytes());
    }
    out.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    out.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for value in [0, base, base, size, size, 0x1000] {
        out.extend(value.to_le_bytes());
    }
    out.extend(code);
    out
}

/// One file of a ustar archive.
fn tar_entry(name: &str, mode: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, mode);
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{:011o}", bytes.len()));
    put(136, "00000000000");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar");
    put(263, "00");
    let sum = header.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header.extend(bytes);
    header.resize(header.len().next_multiple_of(512), 0);
    header
}

fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.extend([0; 1024]);
    out
}

/// A docker archive: layer, configuration, manifest.
fn image_archive(directory: &Path) -> Vec<u8> {
    let layer = tar(&[tar_entry("pause", "0000755", &pause_elf())]);
    let path = directory.join("layer.tar");
    std::fs::write(&path, &layer).unwrap();
    let sum = std::process::Command::new("sha256sum").arg(&path).output().unwrap();
    let digest = String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": { "Entrypoint": ["/pause"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let manifest = serde_json::json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
    tar(&[
        tar_entry("layer.tar", "0000644", &layer),
        tar_entry("config.json", "0000644", config.to_string().as_bytes()),
        tar_entry("manifest.json", "0000644", manifest.to_string().as_bytes()),
    ])
}

fn node_config(directory: &Path) -> NodeConfig {
    NodeConfig {
        node_name: "test".to_owned(),
        hostname: "test".to_owned(),
        node_ips: vec!["127.0.0.1".parse().unwrap()],
        labels: Default::default(),
        taints: Vec::new(),
        kubelet_dir: directory.join("kubelet"),
        pod_log_dir: directory.join("pod-logs"),
        container_log_dir: directory.join("container-logs"),
        cgroup_root: cgroup(),
        runtime: RuntimeConfig {
            endpoint: None,
            bin_dir: None,
            root: directory.join("root"),
            state: directory.join("state"),
            sandbox_image: IMAGE.to_owned(),
            cni_bin_dir: directory.join("cni-bin"),
            cni_conf_dir: directory.join("cni-conf"),
            registries_file: directory.join("registries.yaml"),
        },
        images: Vec::new(),
        cluster_dns: Vec::new(),
        cluster_domain: "cluster.local".to_owned(),
        resolv_conf: "/etc/resolv.conf".into(),
        max_pods: 1,
        eviction_hard: "".parse().unwrap(),
        kubelet_version: "v0".to_owned(),
        server: None,
    }
}

/// In the host's network, so that no CNI plugin is needed.
fn sandbox_config(directory: &Path) -> v1::PodSandboxConfig {
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: "p".to_owned(),
            uid: "u1".to_owned(),
            namespace: "n".to_owned(),
            attempt: 0,
        }),
        log_directory: directory.join("pod-logs").display().to_string(),
        labels: HashMap::from([(POD_UID.to_owned(), "u1".to_owned())]),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: format!("{}/kubepods/podu1", cgroup()),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    network: v1::NamespaceMode::Node as i32,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

async fn check_ready(cri: &Cri, ready: &[bool]) {
    let observed = observe_pod(cri, "u1", &mut Remembered::default()).await.unwrap();
    assert_eq!(observed.sandboxes.iter().map(|sandbox| sandbox.ready).collect::<Vec<_>>(), ready);
}

/// `None` while the file is being written.
fn pid_of(directory: &Path) -> Option<i32> {
    std::fs::read_to_string(directory.join("state/containerd.pid")).unwrap().trim().parse().ok()
}

fn processes_naming(text: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let own = std::process::id().to_string();
    entries
        .filter(|path| path.file_name().is_some_and(|name| name != own.as_str()))
        .filter(|path| {
            std::fs::read(path.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text))
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_containerd_and_nothing_is_left_at_the_end() {
    let tools = Path::new("/usr/bin/containerd").is_file() && cfg!(target_arch = "x86_64");
    if !rustix::process::geteuid().is_root() || !tools {
        eprintln!("skipped: needs root, containerd and an x86-64 processor");
        return;
    }
    let directory = std::env::temp_dir().join(format!("hf-node-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let config = node_config(&directory);
    // A task of its own, so that what it started ends also when it fails.
    let stop = CancellationToken::new();
    let outcome = tokio::spawn(outlive(directory.clone(), config.clone(), stop.clone())).await;
    stop.cancel();
    stop_runtime(&config).await;
    let text = directory.display().to_string();
    let left = (processes_naming(&text), std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(&text));
    let memory = Path::new("/sys/fs/cgroup/memory").join(cgroup().trim_start_matches('/'));
    let cgroups_left = memory.join("kubepods").exists();
    stop_runtime(&config).await;
    remove_cgroup(&cgroup()).await;
    std::fs::remove_dir_all(&directory).unwrap();
    outcome.unwrap();
    assert_eq!((left, cgroups_left), ((Vec::<PathBuf>::new(), false), false));
}

async fn outlive(directory: PathBuf, config: NodeConfig, end: CancellationToken) {
    let stop = end.child_token();
    let runtime = start_runtime(&config.runtime, stop.clone()).await.unwrap();
    import_images(&config.runtime, &image_archive(&directory)).await.unwrap();
    let request = v1::RunPodSandboxRequest { config: Some(sandbox_config(&directory)), runtime_handler: String::new() };
    runtime.cri.run_pod_sandbox(request).await.unwrap();
    check_ready(&runtime.cri, &[true]).await;

    // We stop and come back: the same containerd.
    stop.cancel();
    let first = pid_of(&directory);
    let runtime = start_runtime(&config.runtime, end.child_token()).await.unwrap();
    assert_eq!(pid_of(&directory), first);

    // containerd dies: another one takes over, the sandbox never stopped.
    let pid = first.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let is_new = || pid_of(&directory).is_some() && pid_of(&directory) != first;
    let answered = async {
        while !is_new() || runtime.cri.version(v1::VersionRequest::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), answered).await.unwrap();
    check_ready(&runtime.cri, &[true]).await;
}
