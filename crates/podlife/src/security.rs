//! The effective security settings of a container: its own over the pod's. Output: values for the runtime, or why the
//! container must not run.

use k8s_openapi::api::core::v1::{Container, Pod, PodSecurityContext, SeccompProfile, SecurityContext};

use crate::spec::{containers, init_containers, pod_label, pod_spec};

#[derive(Debug, Clone, PartialEq)]
pub enum Seccomp {
    Unconfined,
    RuntimeDefault,
    /// Path below the kubelet's seccomp directory.
    Localhost(String),
}

/// What the container runs as.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Effective {
    pub run_as_user: Option<i64>,
    pub run_as_group: Option<i64>,
    pub run_as_non_root: bool,
    pub privileged: bool,
    pub read_only_root: bool,
    pub allow_privilege_escalation: bool,
    pub add_capabilities: Vec<String>,
    pub drop_capabilities: Vec<String>,
    /// `procMount: Unmasked` takes the default masks away.
    pub unmasked_proc: bool,
    pub seccomp: Option<Seccomp>,
    /// fsGroup and supplementalGroups.
    pub supplemental_groups: Vec<i64>,
    pub strict_groups: bool,
}

pub fn derive_effective(pod: &Pod, container: &Container) -> Effective {
    let empty = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&empty);
    let none = PodSecurityContext::default();
    let shared = pod_spec(pod).security_context.as_ref().unwrap_or(&none);
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let mut supplemental_groups = shared.supplemental_groups.clone().unwrap_or_default();
    supplemental_groups.extend(shared.fs_group);
    Effective {
        run_as_user: own.run_as_user.or(shared.run_as_user),
        run_as_group: own.run_as_group.or(shared.run_as_group),
        run_as_non_root: own.run_as_non_root.or(shared.run_as_non_root) == Some(true),
        privileged: own.privileged == Some(true),
        read_only_root: own.read_only_root_filesystem == Some(true),
        allow_privilege_escalation: own.allow_privilege_escalation != Some(false),
        add_capabilities: capabilities.add.unwrap_or_default(),
        drop_capabilities: capabilities.drop.unwrap_or_default(),
        unmasked_proc: own.proc_mount.as_deref() == Some("Unmasked"),
        seccomp: own.seccomp_profile.as_ref().or(shared.seccomp_profile.as_ref()).map(seccomp_of),
        supplemental_groups,
        strict_groups: shared.supplemental_groups_policy.as_deref() == Some("Strict"),
    }
}

fn seccomp_of(profile: &SeccompProfile) -> Seccomp {
    match profile.type_.as_str() {
        "RuntimeDefault" => Seccomp::RuntimeDefault,
        "Localhost" => Seccomp::Localhost(profile.localhost_profile.clone().unwrap_or_default()),
        _ => Seccomp::Unconfined,
    }
}

/// A pod with a privileged container needs a privileged sandbox.
pub fn any_privileged(pod: &Pod) -> bool {
    init_containers(pod)
        .iter()
        .chain(containers(pod))
        .any(|container| container.security_context.as_ref().is_some_and(|context| context.privileged == Some(true)))
}

/// runAsNonRoot against the spec's and the image's user. `image_uid`/`image_user`: what the image says, if anything.
/// The error is upstream's text.
pub fn verify_non_root(
    pod: &Pod,
    container: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let effective = derive_effective(pod, container);
    if !effective.run_as_non_root {
        return Ok(());
    }
    let what = format!("(pod: \"{}\", container: {})", pod_label(pod), container.name);
    match (effective.run_as_user, image_uid) {
        (Some(0), _) => Err(format!("container's runAsUser breaks non-root policy {what}")),
        (Some(_), _) => Ok(()),
        (None, Some(0)) => Err(format!("container has runAsNonRoot and image will run as root {what}")),
        (None, None) if !image_user.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({image_user}), cannot verify user is non-root {what}"
        )),
        (None, None) => Err(format!("container has runAsNonRoot and image will run as root {what}")),
        (None, Some(_)) => Ok(()),
    }
}
