//! The node's last look at a pod before it starts anything. Input: the pod, the node, the pods already admitted. Output:
//! fine, with the pods that must make room for a critical one, or the verdict that makes it Failed.
//!
//! Invariant: the scheduler's rules (`semantics`), so that a pod bound by hand or by a stale decision cannot overcommit the
//! node. Reasons and messages are upstream's.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use semantics::node_fit::{
    AFFINITY_MISMATCH, HostPort, NAME_MISMATCH, PORTS_TAKEN, Shortage, WholeAmounts, find_shortages, host_ports,
    whole_amounts,
};
use semantics::node_selector::{NodeFacts, matches_pod_requirements};
use semantics::resources::{Amounts, ResourceList, pod_requests};
use semantics::taints::{NO_EXECUTE, find_untolerated};
use semantics::validate::resources::is_extended;

use crate::memory::Verdict;
use crate::preemption::choose_victims;
use crate::spec::{is_critical, pod_spec};
use crate::sysctls::find_forbidden;

/// The only operating system whose pods run here, and the label that names it.
const OS: &str = "linux";
const OS_LABEL: &str = "kubernetes.io/os";

/// What of the node a pod must suit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeView {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub allocatable: WholeAmounts,
    /// The runtime knows `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
}

impl NodeView {
    /// The node as the API has it, but for what the kubelet has measured itself.
    pub fn new(node: &Node, measured: &ResourceList) -> Self {
        let status = node.status.as_ref();
        let features = status.and_then(|status| status.features.as_ref());
        let mut allocatable = status.and_then(|status| status.allocatable.clone()).unwrap_or_default();
        allocatable.extend(measured.clone());
        Self {
            name: node.metadata.name.clone().unwrap_or_default(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            allocatable: whole_amounts(&Amounts::from_list(Some(&allocatable))),
            strict_groups: features.and_then(|features| features.supplemental_groups_policy) == Some(true),
        }
    }
}

/// `others` are the pods that the node has admitted and that have not ended. `Ok` names those that must go: none, unless the
/// pod is critical. `Err` carries the first reason to refuse, in upstream's order.
pub fn decide_admission(pod: &Pod, node: &NodeView, others: &[Arc<Pod>]) -> Result<Vec<Arc<Pod>>, Verdict> {
    check_sysctls(pod)?;
    check_system(pod)?;
    check_groups(pod, node)?;
    let shortages = find_pod_shortages(pod, node, others);
    if let Some(short) = shortages.first().filter(|_| !is_critical(pod)) {
        return Err(out_of(short));
    }
    check_place(pod, node)?;
    check_ports(pod, others)?;
    check_taints(pod, node)?;
    choose_victims(pod, &shortages, others).map_err(|missing| no_victims(&missing))
}

/// What becomes of a pod that makes room for a critical one.
pub fn preempted() -> Verdict {
    Verdict::new("Preempting", "Preempted in order to admit critical pod")
        .disrupting("Pod was preempted by Kubelet to accommodate a critical pod.")
}

/// True if what refuses the pod is of the node and may have changed since the node was seen.
pub fn may_be_outdated(verdict: &Verdict) -> bool {
    matches!(verdict.reason.as_str(), "NodeAffinity" | "TaintToleration")
}

fn refuse(reason: &str, message: impl Into<String>) -> Result<(), Verdict> {
    Err(Verdict::new(reason, message))
}

/// One of the scheduler's rules does not hold.
fn fail(predicate: &str, why: &str) -> Result<(), Verdict> {
    refuse(predicate, format!("Predicate {predicate} failed: {why}"))
}

fn check_sysctls(pod: &Pod) -> Result<(), Verdict> {
    find_forbidden(pod_spec(pod)).map_or(Ok(()), |why| refuse("SysctlForbidden", why))
}

fn check_system(pod: &Pod) -> Result<(), Verdict> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS_LABEL));
    if label.is_some_and(|label| label != OS) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return refuse("PodOSSelectorNodeLabelDoesNotMatch", message);
    }
    if pod_spec(pod).os.as_ref().is_some_and(|os| os.name != OS) {
        return refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    Ok(())
}

fn check_groups(pod: &Pod, node: &NodeView) -> Result<(), Verdict> {
    let policy = pod_spec(pod).security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    if policy == Some("Strict") && !node.strict_groups {
        let message = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refuse("SupplementalGroupsPolicyNotSupported", message);
    }
    Ok(())
}

fn find_pod_shortages(pod: &Pod, node: &NodeView, others: &[Arc<Pod>]) -> Vec<Shortage> {
    let mut requests = whole_amounts(&pod_requests(pod));
    // An extended resource that the node does not have is the whole cluster's, or of devices claimed another way.
    requests.retain(|name, _| !is_extended(name) || node.allocatable.contains_key(name));
    let mut used = Amounts::default();
    for other in others {
        used.add(&pod_requests(other));
    }
    let pods = i64::try_from(others.len()).unwrap_or(i64::MAX);
    find_shortages(&requests, &node.allocatable, &whole_amounts(&used), pods)
}

fn out_of(short: &Shortage) -> Verdict {
    let Shortage { resource, requested, used, capacity } = short;
    let message = format!(
        "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
    );
    Verdict::new(&format!("OutOf{resource}"), message)
}

fn no_victims(missing: &WholeAmounts) -> Verdict {
    let missing = missing.iter().map(|(name, amount)| format!("(res: {name}, q: {amount}), ")).collect::<String>();
    let message = format!(
        "Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to \
         preempt: no set of running pods found to reclaim resources: [{missing}]"
    );
    Verdict::new("UnexpectedAdmissionError", message)
}

fn check_place(pod: &Pod, node: &NodeView) -> Result<(), Verdict> {
    let spec = pod_spec(pod);
    let facts = NodeFacts { name: &node.name, labels: &node.labels };
    if !matches_pod_requirements(spec.node_selector.as_ref(), spec.affinity.as_ref(), facts) {
        return fail("NodeAffinity", AFFINITY_MISMATCH);
    }
    if spec.node_name.as_ref().is_some_and(|name| !name.is_empty() && *name != node.name) {
        return fail("NodeName", NAME_MISMATCH);
    }
    Ok(())
}

fn check_ports(pod: &Pod, others: &[Arc<Pod>]) -> Result<(), Verdict> {
    let wanted = host_ports(pod);
    if wanted.is_empty() {
        return Ok(());
    }
    let is_taken = |taken: &HostPort| wanted.iter().any(|wanted| wanted.clashes(taken));
    if others.iter().any(|other| host_ports(other).iter().any(is_taken)) {
        return fail("NodePorts", PORTS_TAKEN);
    }
    Ok(())
}

/// Only taints that would end the pod count; to keep others off the node is the scheduler's business.
fn check_taints(pod: &Pod, node: &NodeView) -> Result<(), Verdict> {
    let tolerations = pod_spec(pod).tolerations.as_deref().unwrap_or_default();
    match find_untolerated(&node.taints, tolerations, |taint| taint.effect == NO_EXECUTE) {
        Some(_) => fail("TaintToleration", "node(s) had taints that the pod didn't tolerate"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, from_value, json};

    /// A node of two cores and three pods, with a gpu that one pod may have. The API's word on cores is old.
    fn node(patch: Value) -> NodeView {
        let mut node = json!({
            "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
            "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "1Gi", "pods": "3", "x.io/gpu": "1"}}
        });
        for (field, value) in patch.as_object().unwrap() {
            node[field] = value.clone();
        }
        NodeView::new(&from_value(node).unwrap(), &from_value(json!({"cpu": "2"})).unwrap())
    }

    fn pod(spec: Value) -> Arc<Pod> {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([]);
        }
        Arc::new(from_value(json!({ "spec": spec })).unwrap())
    }

    fn requesting(resource: &str, amount: &str) -> Arc<Pod> {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {resource: amount}}}]}))
    }

    fn with_port(ip: &str, port: i32) -> Arc<Pod> {
        pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": port, "hostIP": ip}]}]}))
    }

    /// The reason and message of the refusal; without one, nothing and the names of the pods that must go.
    fn answer(pod: &Pod, node: &NodeView, others: &[Arc<Pod>]) -> (String, String) {
        match decide_admission(pod, node, others) {
            Ok(victims) => (String::new(), victims.iter().filter_map(|victim| victim.metadata.name.clone()).collect()),
            Err(verdict) => (verdict.reason, verdict.message),
        }
    }

    #[test]
    fn a_full_node_refuses() {
        let check = |wanted: &Pod, others: &[Arc<Pod>], reason: &str, message: &str| {
            assert_eq!(answer(wanted, &node(json!({})), others), (reason.to_owned(), message.to_owned()));
        };
        let plain = pod(json!({}));
        check(&plain, &[plain.clone(), plain.clone()], "", "");
        let message = "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3";
        check(&plain, &[plain.clone(), plain.clone(), plain.clone()], "OutOfpods", message);
        let message = "Node didn't have enough resource: cpu, requested: 1500, used: 501, capacity: 2000";
        let others = [requesting("cpu", "250m"), requesting("cpu", "250.5m")];
        check(&requesting("cpu", "1.5"), &others, "OutOfcpu", message);
        check(&requesting("cpu", "1.4"), &others, "", "");
        let message = "Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824";
        check(&requesting("memory", "2Gi"), &[], "OutOfmemory", message);
        let message =
            "Node didn't have enough resource: ephemeral-storage, requested: 2, used: 1073741823, capacity: 1073741824";
        let others = [requesting("ephemeral-storage", "1073741823")];
        check(&requesting("ephemeral-storage", "2"), &others, "OutOfephemeral-storage", message);
        let message = "Node didn't have enough resource: x.io/gpu, requested: 1, used: 1, capacity: 1";
        check(&requesting("x.io/gpu", "1"), &[requesting("x.io/gpu", "1")], "OutOfx.io/gpu", message);
        check(&requesting("x.io/other", "1"), &[], "", "");
    }

    #[test]
    fn a_critical_pod_makes_room_for_itself() {
        let mut running = (*requesting("cpu", "1.5")).clone();
        running.metadata.name = Some("running".to_owned());
        let others = [Arc::new(running)];
        let mut critical = (*requesting("cpu", "1")).clone();
        critical.spec.as_mut().unwrap().priority = Some(2_000_001_000);
        assert_eq!(answer(&critical, &node(json!({})), &others), (String::new(), "running".to_owned()));
        critical.spec.as_mut().unwrap().node_name = Some("n2".to_owned());
        assert_eq!(answer(&critical, &node(json!({})), &others).0, "NodeName", "in vain, so nobody goes");
        let mut huge = (*requesting("cpu", "3")).clone();
        huge.spec.as_mut().unwrap().priority = Some(2_000_001_000);
        let (reason, message) = answer(&huge, &node(json!({})), &others);
        assert_eq!(reason, "UnexpectedAdmissionError");
        assert!(
            message.ends_with("no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]"),
            "{message}"
        );
    }

    #[test]
    fn a_taken_host_port_refuses() {
        let node = node(json!({}));
        let refused = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        let expect = ("NodePorts".to_owned(), refused.to_owned());
        assert_eq!(answer(&with_port("", 80), &node, &[with_port("10.0.0.1", 80)]), expect);
        assert_eq!(answer(&with_port("", 80), &node, &[with_port("", 81), pod(json!({}))]), Default::default());
        assert_eq!(answer(&pod(json!({})), &node, &[with_port("", 80)]), Default::default());
    }

    #[test]
    fn the_place_must_be_the_right_one() {
        let check = |spec: Value, reason: &str, why: &str| {
            let message = format!("Predicate {reason} failed: {why}");
            let expect = if reason.is_empty() { Default::default() } else { (reason.to_owned(), message) };
            assert_eq!(answer(&pod(spec), &node(json!({})), &[]), expect);
        };
        check(json!({"nodeSelector": {"disk": "ssd"}, "nodeName": "n1"}), "", "");
        check(
            json!({"nodeSelector": {"disk": "hdd"}}),
            "NodeAffinity",
            "node(s) didn't match Pod's node affinity/selector",
        );
        check(json!({"nodeName": "n2"}), "NodeName", "node(s) didn't match the requested node name");
    }

    #[test]
    fn only_taints_that_end_pods_refuse() {
        let tainted = |effect: &str| node(json!({"spec": {"taints": [{"key": "k", "effect": effect}]}}));
        let (reason, message) = answer(&pod(json!({})), &tainted("NoExecute"), &[]);
        assert_eq!(reason, "TaintToleration");
        assert_eq!(message, "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate");
        assert_eq!(answer(&pod(json!({})), &tainted("NoSchedule"), &[]), Default::default());
        let tolerating = pod(json!({"tolerations": [{"operator": "Exists"}]}));
        assert_eq!(answer(&tolerating, &tainted("NoExecute"), &[]), Default::default());
    }

    #[test]
    fn what_the_node_cannot_run_is_refused_first() {
        let reason = |pod: &Pod, node: &NodeView| answer(pod, node, &[]).0;
        let node_ = node(json!({}));
        assert_eq!(reason(&pod(json!({"os": {"name": "windows"}, "nodeName": "n2"})), &node_), "PodOSNotSupported");
        assert_eq!(reason(&pod(json!({"os": {"name": "linux"}})), &node_), "");
        let labelled: Pod = from_value(json!({"metadata": {"labels": {"kubernetes.io/os": "windows"}}})).unwrap();
        assert_eq!(reason(&labelled, &node_), "PodOSSelectorNodeLabelDoesNotMatch");
        let strict = pod(json!({"securityContext": {"supplementalGroupsPolicy": "Strict"}}));
        assert_eq!(reason(&strict, &node_), "SupplementalGroupsPolicyNotSupported");
        let knows = json!({"status": {"allocatable": {"pods": "1"}, "features": {"supplementalGroupsPolicy": true}}});
        assert_eq!(reason(&strict, &node(knows)), "");
        let tuned = json!({"os": {"name": "windows"}, "securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}});
        let message = "forbidden sysctl: \"kernel.msgmax\" not allowlisted";
        assert_eq!(answer(&pod(tuned), &node_, &[]), ("SysctlForbidden".to_owned(), message.to_owned()));
    }

    #[test]
    fn only_what_is_of_the_node_may_be_outdated() {
        let verdict = |reason: &str| Verdict::new(reason, "");
        assert!(may_be_outdated(&verdict("NodeAffinity")) && may_be_outdated(&verdict("TaintToleration")));
        assert!(!may_be_outdated(&verdict("NodePorts")) && !may_be_outdated(&verdict("OutOfcpu")));
    }
}
