//! The usage of ResourceQuotas, against the simulated API and against caches that are behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use controllers::quotas::ResourceQuotaController;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Secret, Service};
use reconcile::harness::{Harness, World, check_crash_safety};
use reconcile::{
    Cache, Controller as _, Input, Key, Observation, Observe, Observed, Plan, Registrar as _, ResourceId, View,
};
use serde_json::{Value, from_value, json};

fn quota(hard: Value, scopes: Value) -> ResourceQuota {
    from_value(json!({"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard, "scopes": scopes}})).unwrap()
}

fn pod(name: &str, namespace: &str, phase: &str) -> Pod {
    from_value(json!({
        "metadata": {"name": name, "namespace": namespace, "uid": format!("{namespace}-{name}")},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "250m"}}}]},
        "status": {"phase": phase},
    }))
    .unwrap()
}

fn named<K: reconcile::Object>(name: &str) -> K {
    let spec = json!({"selector": {}, "template": {}, "type": "NodePort", "ports": [{"port": 1}]});
    from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec})).unwrap()
}

/// `status.used` of the quota, if `status.hard` is what the spec says.
fn used(world: &World) -> Value {
    let quota: ResourceQuota = world.get("ns", "q").unwrap();
    let status = quota.status.unwrap();
    assert_eq!(status.hard, quota.spec.unwrap().hard);
    serde_json::to_value(status.used).unwrap()
}

fn idle(_: &mut World) -> bool {
    false
}

fn setup() -> Harness {
    let hard = json!({"pods": "9", "requests.cpu": "1", "secrets": "9", "count/deployments.apps": "9",
        "services.nodeports": "9", "requests.storage": "9Gi", "count/unheard.example.com": "9"});
    let mut harness = Harness::new();
    harness.register(ResourceQuotaController);
    harness.add(&quota(hard, Value::Null));
    harness.add(&pod("a", "ns", "Running"));
    harness.add(&pod("b", "ns", "Pending"));
    harness.add(&pod("done", "ns", "Succeeded"));
    harness.add(&pod("a", "other", "Running"));
    harness.add(&named::<Secret>("s"));
    harness.add(&named::<Secret>("t"));
    harness.add(&named::<Deployment>("d"));
    harness.add(&named::<Service>("s"));
    harness
}

#[test]
fn everything_that_the_quota_limits_is_counted() {
    check_crash_safety(setup, idle);
    let mut harness = setup();
    harness.settle();
    assert_eq!(
        used(&harness.world),
        json!({"pods": "2", "requests.cpu": "500m", "secrets": "2", "count/deployments.apps": "1",
            "services.nodeports": "1", "requests.storage": "0"})
    );
}

#[test]
fn what_goes_or_ends_is_given_back_and_limits_follow_the_spec() {
    let mut harness = setup();
    harness.settle();
    harness.world.delete::<Pod>("ns", "a", None);
    harness.world.delete::<Secret>("ns", "s", None);
    harness.world.update_each::<Pod>(|pod| pod.status.get_or_insert_default().phase = Some("Failed".to_owned()));
    harness.settle();
    let found = used(&harness.world);
    assert_eq!((&found["pods"], &found["requests.cpu"], &found["secrets"]), (&json!("0"), &json!("0"), &json!("1")));
    harness.world.update_each::<ResourceQuota>(|quota| {
        let hard = quota.spec.get_or_insert_default().hard.get_or_insert_default();
        hard.retain(|name, _| name == "secrets");
        hard.insert("count/pods".to_owned(), hard["secrets"].clone());
    });
    harness.settle();
    assert_eq!(used(&harness.world), json!({"secrets": "1", "count/pods": "2"}));
}

#[test]
fn kinds_without_scopes_are_not_in_any() {
    let mut harness = Harness::new();
    harness.register(ResourceQuotaController);
    harness.add(&quota(json!({"pods": "9", "secrets": "9"}), json!(["NotTerminating"])));
    harness.add(&pod("a", "ns", "Running"));
    harness.add(&named::<Secret>("s"));
    harness.settle();
    assert_eq!(used(&harness.world), json!({"pods": "1", "secrets": "0"}));
}

/// Caches of one quota (at revision 10, charged for two pods) and of pods.
struct Caches {
    pods: Arc<Cache<Pod>>,
    view: View,
}

impl Caches {
    fn new() -> Self {
        let quotas = Arc::new(Cache::<ResourceQuota>::default());
        let mut quota = quota(json!({"pods": "3"}), Value::Null);
        quota.status = from_value(json!({"hard": {"pods": "3"}, "used": {"pods": "2"}})).unwrap();
        quota.metadata.resource_version = Some("10".to_owned());
        quotas.apply(quota);
        let pods = Arc::new(Cache::<Pod>::default());
        let mut view = View::default();
        view.add(quotas);
        view.add(pods.clone());
        view.add(Arc::new(Cache::<Service>::default()));
        view.add(Arc::new(Cache::<PersistentVolumeClaim>::default()));
        Self { pods, view }
    }

    fn see(&self, name: &str, version: &str) {
        let mut pod = pod(name, "ns", "Running");
        pod.metadata.resource_version = Some(version.to_owned());
        self.pods.apply(pod);
    }

    fn plan(&self, observed: &Observed) -> Plan {
        let key = Key::new("ns", "q");
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let input = Input { key: &key, view: &self.view, now, monotonic: Duration::ZERO, observed, failure: None };
        ResourceQuotaController.plan(&input, &mut ())
    }
}

fn list_of_pods() -> Observe {
    Observe::List { resource: ResourceId::of::<Pod>(), namespace: "ns".to_owned() }
}

fn listed(pods: &[(&str, &str)]) -> Observed {
    let item = |(name, version): &(&str, &str)| json!({"metadata": {"name": name, "resourceVersion": version}});
    Observed::from([(list_of_pods(), Observation::Listed(pods.iter().map(item).collect()))])
}

#[test]
fn usage_is_not_lowered_while_a_charged_pod_may_be_unseen() {
    let caches = Caches::new();
    caches.see("a", "5");
    assert_eq!(caches.plan(&Observed::new()).observe, [list_of_pods()]);
    for unseen in [[("a", "5"), ("b", "10")], [("a", "9"), ("b", "10")]] {
        let plan = caches.plan(&listed(&unseen));
        assert!(plan.is_empty() && plan.requeue_after.unwrap() < Duration::from_secs(1), "{plan:?}");
    }
    let failed = Observed::from([(list_of_pods(), Observation::Failed("timeout".to_owned()))]);
    assert!(caches.plan(&failed).is_empty());
    assert_eq!(caches.plan(&listed(&[("a", "5")])).writes.len(), 1, "the second pod is gone already");
}

#[test]
fn usage_follows_what_was_seen_up_to_the_charge_without_asking() {
    let caches = Caches::new();
    caches.see("a", "10");
    assert_eq!(caches.plan(&Observed::new()).writes.len(), 1);
    caches.see("b", "4");
    assert!(caches.plan(&Observed::new()).is_empty());
    caches.see("c", "3");
    assert_eq!(caches.plan(&Observed::new()).writes.len(), 1, "more than charged needs no proof");
}
