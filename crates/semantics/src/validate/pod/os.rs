//! The operating system a pod is for: what it leaves no room for. Also Windows' containers that are the host's processes.

use k8s_openapi::api::core::v1::{PodSpec, SecurityContext};

use super::visit::all_containers;
use crate::field::{Errors, Path};

pub(super) fn validate_os(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    match spec.os.as_ref().map(|os| os.name.as_str()) {
        None => {}
        Some("") => errors.required(path.child("os").child("name"), ""),
        Some("linux") => validate_linux(spec, path, errors),
        Some("windows") => validate_windows(spec, path, errors),
        Some(other) => errors.not_supported(path.child("os"), other, &["linux", "windows"]),
    }
}

fn validate_linux(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let detail = "windows options cannot be set for a linux pod";
    let field = |path: &Path| path.child("securityContext").child("windowsOptions");
    if spec.security_context.as_ref().is_some_and(|context| context.windows_options.is_some()) {
        errors.forbidden(field(path), detail);
    }
    for (path, container) in all_containers(spec, path) {
        if container.security_context.is_some_and(|context| context.windows_options.is_some()) {
            errors.forbidden(field(&path), detail);
        }
    }
}

fn validate_windows(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let context = spec.security_context.clone().unwrap_or_default();
    let of_context = [
        ("appArmorProfile", context.app_armor_profile.is_some()),
        ("seLinuxOptions", context.se_linux_options.is_some()),
        ("seccompProfile", context.seccomp_profile.is_some()),
        ("fsGroup", context.fs_group.is_some()),
        ("fsGroupChangePolicy", context.fs_group_change_policy.is_some()),
        ("sysctls", context.sysctls.is_some_and(|sysctls| !sysctls.is_empty())),
        ("runAsUser", context.run_as_user.is_some()),
        ("runAsGroup", context.run_as_group.is_some()),
        ("supplementalGroups", context.supplemental_groups.is_some()),
        ("supplementalGroupsPolicy", context.supplemental_groups_policy.is_some()),
        ("seLinuxChangePolicy", context.se_linux_change_policy.is_some()),
    ];
    refuse_on_windows(&of_context, &path.child("securityContext"), errors);
    let of_spec = [
        ("hostUsers", spec.host_users.is_some()),
        ("hostPID", spec.host_pid == Some(true)),
        ("hostIPC", spec.host_ipc == Some(true)),
        ("shareProcessNamespace", spec.share_process_namespace.is_some()),
    ];
    refuse_on_windows(&of_spec, path, errors);
    for (path, container) in all_containers(spec, path) {
        if let Some(context) = container.security_context {
            refuse_on_windows(&linux_fields(context), &path.child("securityContext"), errors);
        }
    }
}

fn linux_fields(context: &SecurityContext) -> [(&'static str, bool); 10] {
    [
        ("appArmorProfile", context.app_armor_profile.is_some()),
        ("seLinuxOptions", context.se_linux_options.is_some()),
        ("seccompProfile", context.seccomp_profile.is_some()),
        ("capabilities", context.capabilities.is_some()),
        ("readOnlyRootFilesystem", context.read_only_root_filesystem.is_some()),
        ("privileged", context.privileged.is_some()),
        ("allowPrivilegeEscalation", context.allow_privilege_escalation.is_some()),
        ("procMount", context.proc_mount.is_some()),
        ("runAsUser", context.run_as_user.is_some()),
        ("runAsGroup", context.run_as_group.is_some()),
    ]
}

fn refuse_on_windows(fields: &[(&str, bool)], path: &Path, errors: &mut Errors) {
    for (name, _) in fields.iter().filter(|(_, set)| *set) {
        errors.forbidden(path.child(name), "cannot be set for a windows pod");
    }
}

/// Containers that are processes of the host: all of a pod's or none, and in the host's network.
pub(super) fn validate_host_processes(spec: &PodSpec, path: &Path, errors: &mut Errors) {
    let of_pod = spec.security_context.as_ref().and_then(|c| c.windows_options.as_ref()?.host_process);
    let containers = all_containers(spec, path);
    let mut count = 0;
    for (path, container) in &containers {
        let own = container.security_context.and_then(|c| c.windows_options.as_ref()?.host_process);
        if let (Some(pod), Some(own)) = (of_pod, own)
            && pod != own
        {
            let detail = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            errors.invalid(path.child("securityContext").child("windowsOptions").child("hostProcess"), own, detail);
        }
        count += usize::from(own.or(of_pod) == Some(true));
    }
    if count == 0 {
        return;
    }
    if count != containers.len() {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.invalid(path.clone(), "", detail);
    }
    if spec.host_network != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.invalid(path.child("hostNetwork"), false, detail);
    }
}

#[cfg(test)]
mod tests {
    use crate::check::check_pod as check;
    use serde_json::json;

    #[test]
    fn each_system_refuses_what_is_the_others() {
        check(json!({"os": {"name": ""}}), "spec.os.name: Required value");
        check(
            json!({"os": {"name": "x"}}),
            "spec.os: Unsupported value: \"x\": supported values: \"linux\", \"windows\"",
        );
        check(
            json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}}}),
            "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
        );
        check(
            json!({"os": {"name": "windows"}, "hostUsers": true, "securityContext": {"runAsUser": 1}}),
            "[spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod, spec.hostUsers: Forbidden: cannot be set for a windows pod]",
        );
    }

    #[test]
    fn processes_of_the_host() {
        let options = json!({"windowsOptions": {"hostProcess": true}});
        check(json!({"hostNetwork": true, "securityContext": options}), "");
        check(
            json!({"initContainers": [{"name": "i", "image": "i", "securityContext": options}]}),
            "[spec: Invalid value: \"\": If pod contains any hostProcess containers then all containers must be HostProcess containers, spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers]",
        );
    }
}
