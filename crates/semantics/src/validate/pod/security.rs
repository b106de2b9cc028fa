//! Security contexts of pods and containers, and the namespaces of the host a pod shares.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext, Sysctl};

use serde_json::{Value, json};

use super::visit::all_containers;
use crate::defaults::text;
use crate::field::{Errors, Path};
use crate::names::user_id;
use crate::validate::volume_source::validate_relative;

/// The longest path of Linux.
const APP_ARMOR_BYTES_MAX: usize = 4095;
const SYSCTL_LETTERS_MAX: usize = 253;

pub(super) fn validate_pod_security(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errors.invalid(path.child("shareProcessNamespace"), true, detail);
    }
    let Some(context) = &spec.security_context else { return };
    let path = path.child("securityContext");
    let ids = [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)];
    for (name, id) in ids {
        validate_id(id, path.child(name), errors);
    }
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        validate_id(Some(*group), path.child("supplementalGroups").index(index), errors);
    }
    validate_sysctls(context.sysctls.as_deref().unwrap_or_default(), spec, &path.child("sysctls"), errors);
    let choices = [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, ["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, ["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, ["MountOption", "Recursive"]),
    ];
    for (name, value, supported) in choices {
        if let Some(value) = value.as_deref().filter(|value| !supported.contains(value)) {
            errors.not_supported(path.child(name), value, &supported);
        }
    }
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

pub(super) fn validate_security_context(
    context: Option<&SecurityContext>,
    host_users: bool,
    path: &Path,
    errors: &mut Errors,
) {
    let Some(context) = context else { return };
    let path = path.child("securityContext");
    validate_id(context.run_as_user, path.child("runAsUser"), errors);
    validate_id(context.run_as_group, path.child("runAsGroup"), errors);
    match context.proc_mount.as_deref() {
        None | Some("Default") => {}
        Some("Unmasked") if !host_users => {}
        Some("Unmasked") => {
            errors.invalid(path.child("procMount"), "Unmasked", "`hostUsers` must be false to use `Unmasked`");
        }
        Some(other) => errors.not_supported(path.child("procMount"), other, &["Default", "Unmasked"]),
    }
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        let fields = internal_fields(context);
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.invalid_struct(path.clone(), &fields, detail);
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.invalid_struct(path.clone(), &fields, detail);
        }
    }
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

/// The context as upstream shows it; parts that are structs themselves are shown in the API's form.
fn internal_fields(context: &SecurityContext) -> [(&'static str, Value); 12] {
    let capabilities = context.capabilities.as_ref().map(|c| json!({"Add": c.add, "Drop": c.drop}));
    [
        ("Capabilities", json!(capabilities)),
        ("Privileged", json!(context.privileged)),
        ("SELinuxOptions", json!(context.se_linux_options)),
        ("WindowsOptions", json!(context.windows_options)),
        ("RunAsUser", json!(context.run_as_user)),
        ("RunAsGroup", json!(context.run_as_group)),
        ("RunAsNonRoot", json!(context.run_as_non_root)),
        ("ReadOnlyRootFilesystem", json!(context.read_only_root_filesystem)),
        ("AllowPrivilegeEscalation", json!(context.allow_privilege_escalation)),
        ("ProcMount", json!(context.proc_mount)),
        ("SeccompProfile", json!(context.seccomp_profile)),
        ("AppArmorProfile", json!(context.app_armor_profile)),
    ]
}

fn validate_id(id: Option<i64>, path: Path, errors: &mut Errors) {
    if let Some(id) = id {
        for message in user_id(id) {
            errors.invalid(path.clone(), id, message);
        }
    }
}

pub(super) fn validate_host_users(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    if spec.host_users != Some(false) {
        return;
    }
    let detail = "when `hostUsers` is false";
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (name, _) in shared.iter().filter(|(_, shared)| *shared == Some(true)) {
        errors.forbidden(path.child(name), detail);
    }
    for (path, container) in all_containers(spec, path) {
        if !container.volume_devices.is_empty() {
            errors.forbidden(path.child("volumeDevices"), detail);
        }
    }
}

fn validate_sysctls(sysctls: &[Sysctl], spec: &PodSpec, path: &Path, errors: &mut Errors) {
    for (index, sysctl) in sysctls.iter().enumerate() {
        let (path, name) = (path.index(index).child("name"), sysctl.name.as_str());
        if name.is_empty() {
            errors.required(path.clone(), "");
        } else if !is_sysctl(name) {
            let detail = format!(
                "must have at most {SYSCTL_LETTERS_MAX} characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.invalid(path.clone(), name, detail);
        } else if sysctls[..index].iter().any(|other| other.name == name) {
            errors.duplicate(path.clone(), name);
        }
        if name.starts_with("net.") && spec.host_network == Some(true) {
            errors.invalid(path.clone(), name, "may not be specified when 'hostNetwork' is true");
        }
        let ipc = name.starts_with("kernel.shm") || name.starts_with("kernel.msg") || name.starts_with("fs.mqueue.");
        if (ipc || name == "kernel.sem") && spec.host_ipc == Some(true) {
            errors.invalid(path, name, "may not be specified when 'hostIPC' is true");
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let segment = |part: &str| {
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        part.starts_with(edge) && part.ends_with(edge) && part.chars().all(|c| edge(c) || matches!(c, '-' | '_'))
    };
    name.len() <= SYSCTL_LETTERS_MAX && name.split(['.', '/']).all(segment)
}

fn validate_seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    match profile.type_.as_str() {
        "Localhost" | "RuntimeDefault" | "Unconfined" => {}
        "" => errors.required(path.child("type"), "type is required when seccompProfile is set"),
        other => errors.not_supported(path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
    let path = path.child("localhostProfile");
    match &profile.localhost_profile {
        None if profile.type_ == "Localhost" => errors.required(path, "must be set when seccomp type is Localhost"),
        None => {}
        Some(local) if profile.type_ == "Localhost" => validate_relative(local, &path, errors),
        Some(local) => {
            let fields = [("Type", json!(profile.type_)), ("LocalhostProfile", json!(local))];
            errors.invalid_struct(path, &fields, "can only be set when seccomp type is Localhost");
        }
    }
}

pub(crate) fn validate_app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut Errors) {
    let Some(profile) = profile else { return };
    let local = text(&profile.localhost_profile);
    match profile.type_.as_str() {
        "Localhost" if local.is_empty() => {
            errors.required(path.child("localhostProfile"), "must be set when AppArmor type is Localhost");
        }
        "Localhost" => {
            if local.trim() != local {
                errors.invalid(path.child("localhostProfile"), local, "must not be padded with whitespace");
            }
            if local.len() > APP_ARMOR_BYTES_MAX {
                errors.too_long(path.child("localhostProfile"), APP_ARMOR_BYTES_MAX);
            }
        }
        "RuntimeDefault" | "Unconfined" => {
            if profile.localhost_profile.is_some() {
                let detail = "can only be set when AppArmor type is Localhost";
                errors.invalid(path.child("localhostProfile"), local, detail);
            }
        }
        "" => errors.required(path.child("type"), "type is required when appArmorProfile is set"),
        other => errors.not_supported(path.child("type"), other, &["Localhost", "RuntimeDefault", "Unconfined"]),
    }
}
