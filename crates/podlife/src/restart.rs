//! Whether a container that exited is started again. Input: pod policy, the container's own, the exit code.

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::spec::{is_sidecar, pod_spec};

/// Policy of the pod as a word, "Always" where the API left it out.
pub fn pod_policy(pod: &Pod) -> &str {
    pod_spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// For an exit with `exit_code`. Rules of the container come first, then its policy, then the pod's.
pub fn should_restart(pod: &Pod, container: &Container, exit_code: i32) -> bool {
    if let Some(rule) = matching_rule(container, exit_code) {
        return rule;
    }
    match container.restart_policy.as_deref() {
        Some(policy) => by_policy(policy, exit_code),
        // An init container that succeeded is done under any pod policy.
        None if is_init(pod, container) && exit_code == 0 => false,
        None => by_policy(pod_policy(pod), exit_code),
    }
}

fn by_policy(policy: &str, exit_code: i32) -> bool {
    match policy {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

fn is_init(pod: &Pod, container: &Container) -> bool {
    !is_sidecar(container) && crate::spec::init_containers(pod).iter().any(|c| c.name == container.name)
}

fn matching_rule(container: &Container, exit_code: i32) -> Option<bool> {
    container.restart_policy_rules.iter().flatten().find_map(|rule| {
        let exit_codes = rule.exit_codes.as_ref()?;
        let listed = exit_codes.values.as_deref().unwrap_or_default().contains(&exit_code);
        let matches = match exit_codes.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        matches.then_some(rule.action.starts_with("Restart"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::PodSpec;

    fn check(pod_policy: &str, own: Option<&str>, exit_code: i32, expect: bool) {
        let container = Container { restart_policy: own.map(str::to_owned), ..Container::default() };
        let pod = Pod {
            spec: Some(PodSpec { restart_policy: Some(pod_policy.to_owned()), ..PodSpec::default() }),
            ..Pod::default()
        };
        assert_eq!(should_restart(&pod, &container, exit_code), expect, "{pod_policy} {own:?} {exit_code}");
    }

    #[test]
    fn policies() {
        check("Always", None, 0, true);
        check("Always", None, 1, true);
        check("OnFailure", None, 0, false);
        check("OnFailure", None, 2, true);
        check("Never", None, 1, false);
        check("Never", Some("Always"), 0, true);
        check("Always", Some("Never"), 1, false);
        check("Always", Some("OnFailure"), 0, false);
    }
}
