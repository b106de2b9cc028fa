//! containerd's config.toml as a value. Input: our settings, containerd's version, runc's path. Output: the file's text.
//!
//! Invariant: containerd 1.6 and 1.7 get version 2, 2.x gets version 3; both disable what a kubelet's runtime never
//! uses, so that nothing is created outside root and state.

use std::path::Path;

use crate::config::RuntimeConfig;

/// Major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContainerdVersion(pub u32, pub u32);

/// Reads `containerd github.com/containerd/containerd 1.6.20~ds1 ...` or `... v2.4.2 ...`.
pub fn parse_version(text: &str) -> Option<ContainerdVersion> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.strip_prefix('v').unwrap_or(word).split('.');
        let major = numbers.next()?.parse().ok()?;
        let minor = numbers.next()?.parse().ok()?;
        numbers.next()?;
        Some(ContainerdVersion(major, minor))
    })
}

/// Snapshotters and helpers that a node never uses; `opt` would create /opt/containerd.
const DISABLED: [&str; 6] = [
    "io.containerd.internal.v1.opt",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The whole file.
pub fn derive_config_toml(config: &RuntimeConfig, version: ContainerdVersion, runc: &Path, hosts_dir: &Path) -> String {
    let head = derive_head(config, if version.0 >= 2 { 3 } else { 2 });
    let body =
        if version.0 >= 2 { derive_v3(config, version, runc, hosts_dir) } else { derive_v2(config, runc, hosts_dir) };
    head + &body
}

/// A TOML basic string.
fn quote(text: impl std::fmt::Display) -> String {
    serde_json::Value::String(text.to_string()).to_string()
}

fn quote_path(path: &Path) -> String {
    quote(path.display())
}

fn derive_head(config: &RuntimeConfig, format: u32) -> String {
    let disabled = DISABLED.iter().map(quote).collect::<Vec<_>>().join(", ");
    format!(
        "version = {format}\nroot = {}\nstate = {}\ndisabled_plugins = [{disabled}]\n\n[grpc]\n  address = {}\n\n",
        quote_path(&config.root),
        quote_path(&config.state),
        quote_path(&config.state.join("containerd.sock")),
    )
}

fn derive_v2(config: &RuntimeConfig, runc: &Path, hosts_dir: &Path) -> String {
    format!(
        r#"[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {sandbox}
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = false
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  max_concurrent_downloads = 3
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = {cni_bin}
    conf_dir = {cni_conf}
    max_conf_num = 1
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = {hosts}
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
    snapshotter = "overlayfs"
    discard_unpacked_layers = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = {runc}
        SystemdCgroup = false
"#,
        sandbox = quote(&config.sandbox_image),
        cni_bin = quote_path(&config.cni_bin_dir),
        cni_conf = quote_path(&config.cni_conf_dir),
        hosts = quote_path(hosts_dir),
        runc = quote_path(runc),
    )
}

fn derive_v3(config: &RuntimeConfig, version: ContainerdVersion, runc: &Path, hosts_dir: &Path) -> String {
    // 2.1 renamed the key to a list and 2.3 drops the old one.
    let cni_bin = if version >= ContainerdVersion(2, 1) {
        format!("bin_dirs = [{}]", quote_path(&config.cni_bin_dir))
    } else {
        format!("bin_dir = {}", quote_path(&config.cni_bin_dir))
    };
    format!(
        r#"[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  discard_unpacked_layers = true
  max_concurrent_downloads = 3
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = {sandbox}
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = {hosts}

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    {cni_bin}
    conf_dir = {cni_conf}
    max_conf_num = 1
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        BinaryName = {runc}
        SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
"#,
        sandbox = quote(&config.sandbox_image),
        cni_conf = quote_path(&config.cni_conf_dir),
        hosts = quote_path(hosts_dir),
        runc = quote_path(runc),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Option<ContainerdVersion>) {
        assert_eq!(parse_version(text), expect, "{text}");
    }

    #[test]
    fn versions() {
        check(
            "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3",
            Some(ContainerdVersion(1, 6)),
        );
        check("containerd github.com/containerd/containerd/v2 v2.4.2 abcdef", Some(ContainerdVersion(2, 4)));
        check("nonsense", None);
    }

    fn config() -> RuntimeConfig {
        RuntimeConfig {
            endpoint: None,
            bin_dir: None,
            root: "/r".into(),
            state: "/s".into(),
            sandbox_image: "pause:1".into(),
            cni_bin_dir: "/cni/bin".into(),
            cni_conf_dir: "/cni/conf".into(),
            registries_file: "/etc/holdfast/registries.yaml".into(),
        }
    }

    #[test]
    fn format_follows_the_version() {
        let derive = |major, minor| {
            derive_config_toml(&config(), ContainerdVersion(major, minor), Path::new("/runc"), Path::new("/h"))
        };
        assert!(derive(1, 6).starts_with("version = 2\n"));
        assert!(derive(1, 6).contains("sandbox_image = \"pause:1\""));
        assert!(derive(2, 0).starts_with("version = 3\n"));
        assert!(derive(2, 0).contains("bin_dir = \"/cni/bin\""));
        assert!(derive(2, 4).contains("bin_dirs = [\"/cni/bin\"]"));
    }
}
