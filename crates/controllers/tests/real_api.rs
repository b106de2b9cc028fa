//! All controllers against the real API server and store in one process; a few lines play the kubelet.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use apiserver::documents::Documents;
use apiserver::{ApiServer, ApiServerConfig, Identity};
use base::{OsRng, SystemClock};
use client::{Informer, Informers, Observed, Runner, WatchConfig};
use controllers::nodes::cidr::CidrRange;
use controllers::registry::{Settings, register_all};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, Pod, ResourceQuota, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Client};
use reconcile::{Change, Object};
use serde_json::{Value, from_value, json};
use store::{Config, SimDisk, Store};
use tower::ServiceExt as _;

/// The whole control plane but for the scheduler.
struct Cluster {
    client: Client,
    running: tokio::task::JoinHandle<()>,
}

async fn start() -> Cluster {
    let clock = Arc::new(SystemClock::new());
    let store =
        Store::open(Config::default(), Arc::new(SimDisk::new()), clock.clone(), Arc::new(store::NoPeers)).unwrap();
    let config = ApiServerConfig {
        paths: vec![Arc::new(Documents::new("127.0.0.1:6443", "test"))],
        ..ApiServerConfig::default()
    };
    let server = ApiServer::new(config, Arc::new(store), clock.clone(), Box::new(OsRng));
    server.start().await.unwrap();
    let client_as = |user: &str| {
        let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
        let identity = Identity { user: user.to_owned(), groups, ..Identity::default() };
        client::in_process(server.clone().map_request(move |mut request: http::Request<kube::client::Body>| {
            request.extensions_mut().insert(identity.clone());
            request
        }))
    };
    let informers = Informers::new(client_as("system:kube-controller-manager"));
    let mut runner = Runner::new(informers, clock, 1);
    let pod_range = CidrRange::parse("10.42.0.0/16", 24).unwrap();
    register_all(&mut runner, &Settings { root_ca_pem: "PEM".to_owned(), pod_range });
    let running = tokio::spawn(async move {
        runner.run().await.unwrap();
    });
    Cluster { client: client_as("admin"), running }
}

fn object<K: Object>(value: Value) -> K {
    from_value(value).unwrap()
}

/// Waits until the objects of one kind are as `test` wants them.
async fn until<K: Object>(informer: &Informer<K>, what: &str, mut test: impl FnMut(&[Arc<K>]) -> bool) {
    let mut changes = informer.changes();
    let done = async {
        while !test(&informer.list()) {
            changes.next().await.unwrap();
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(120), done).await;
    assert!(outcome.is_ok(), "{what} never came true: {:#?}", informer.list());
}

fn informer<K: Object>(client: &Client) -> Arc<Informer<K>> {
    Informer::spawn(client.clone(), WatchConfig::default())
}

/// Binds every pod to the node and makes it ready; ends those that are being deleted. A write that fails met a pod that
/// changed or went meanwhile; the next change brings another try.
async fn play_kubelet(client: Client) {
    let pods = informer::<Pod>(&client);
    let mut changes = pods.changes();
    let mut next_address = 10;
    while let Some(observed) = changes.next().await {
        let Observed::Changed(Change::Applied { new: pod, .. }) = observed else { continue };
        let (namespace, name) = (pod.metadata.namespace.clone().unwrap(), pod.metadata.name.clone().unwrap());
        let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
        let is_ready = semantics::pod::is_pod_ready(&pod);
        if pod.metadata.deletion_timestamp.is_some() {
            api.delete(&name, &DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() }).await.ok();
        } else if pod.spec.as_ref().unwrap().node_name.is_none() {
            let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": { "kind": "Node", "name": "n1" } });
            let request = http::Request::post(format!("/api/v1/namespaces/{namespace}/pods/{name}/binding"))
                .header("content-type", "application/json")
                .body(binding.to_string().into_bytes())
                .unwrap();
            client.request::<Value>(request).await.ok();
        } else if !is_ready {
            next_address += 1;
            let ip = format!("10.42.0.{next_address}");
            let status = json!({ "status": { "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
                "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" }] } });
            api.patch_status(&name, &PatchParams::default(), &Patch::Strategic(status)).await.ok();
        }
    }
}

fn deployment() -> Deployment {
    object(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": 3,
            "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "a", "image": "v1" }] } },
        },
    }))
}

fn is_complete(all: &[Arc<Deployment>], revision: &str) -> bool {
    let Some(web) = all.first() else { return false };
    let status = web.status.clone().unwrap_or_default();
    let annotations = web.metadata.annotations.clone().unwrap_or_default();
    status.observed_generation == web.metadata.generation
        && (status.replicas, status.updated_replicas, status.available_replicas) == (Some(3), Some(3), Some(3))
        && annotations.get("deployment.kubernetes.io/revision").is_some_and(|found| found == revision)
}

fn in_ns(meta: &ObjectMeta) -> bool {
    meta.namespace.as_deref() == Some("ns")
}

async fn a_node_gets_its_network(client: &Client) {
    let node = object(json!({ "metadata": { "name": "n1" } }));
    Api::<Node>::all(client.clone()).create(&PostParams::default(), &node).await.unwrap();
    let nodes = informer::<Node>(client);
    until(&nodes, "a pod CIDR", |all| {
        all.iter().any(|node| node.spec.as_ref().and_then(|s| s.pod_cidr.as_deref()) == Some("10.42.0.0/24"))
    })
    .await;
}

async fn a_namespace_gets_its_own(client: &Client) {
    let namespace = object(json!({ "metadata": { "name": "ns" } }));
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    let accounts = informer::<ServiceAccount>(client);
    until(&accounts, "a default account", |all| all.iter().any(|account| in_ns(&account.metadata))).await;
    let config_maps = informer::<ConfigMap>(client);
    until(&config_maps, "root certificates", |all| all.iter().any(|map| in_ns(&map.metadata))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_lives_and_its_namespace_dies() {
    let cluster = start().await;
    let client = cluster.client.clone();
    let create = PostParams::default();
    let kubelet = tokio::spawn(play_kubelet(client.clone()));

    a_node_gets_its_network(&client).await;
    a_namespace_gets_its_own(&client).await;

    let deployments = Api::<Deployment>::namespaced(client.clone(), "ns");
    deployments.create(&create, &deployment()).await.unwrap();
    let deployments_seen = informer::<Deployment>(&client);
    until(&deployments_seen, "the first rollout", |all| is_complete(all, "1")).await;

    let service = json!({ "metadata": { "name": "web" }, "spec": { "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }] } });
    Api::<Service>::namespaced(client.clone(), "ns").create(&create, &object(service)).await.unwrap();
    let slices = informer::<EndpointSlice>(&client);
    until(&slices, "three endpoints", |all| {
        all.iter().any(|slice| in_ns(&slice.metadata) && slice.endpoints.as_ref().map(Vec::len) == Some(3))
    })
    .await;
    let endpoints = informer::<Endpoints>(&client);
    until(&endpoints, "endpoints of old", |all| all.iter().any(|one| in_ns(&one.metadata) && one.subsets.is_some()))
        .await;

    let image = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "a", "image": "v2" }] } } } });
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(image)).await.unwrap();
    until(&deployments_seen, "the second rollout", |all| is_complete(all, "2")).await;
    let events = informer::<Event>(&client);
    until(&events, "an event", |all| all.iter().any(|event| event.reason.as_deref() == Some("ScalingReplicaSet")))
        .await;

    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    deployments.delete("web", &foreground).await.unwrap();
    let (sets, pods) = (informer::<ReplicaSet>(&client), informer::<Pod>(&client));
    until(&deployments_seen, "the deployment's end", <[_]>::is_empty).await;
    until(&sets, "the replica sets' end", <[_]>::is_empty).await;
    until(&pods, "the pods' end", <[_]>::is_empty).await;

    deployments.create(&create, &deployment()).await.unwrap();
    until(&deployments_seen, "another rollout", |all| is_complete(all, "1")).await;
    Api::<Namespace>::all(client.clone()).delete("ns", &DeleteParams::default()).await.unwrap();
    let namespaces = informer::<Namespace>(&client);
    namespaces.synced().await;
    until(&namespaces, "the namespace's end", |all| {
        !all.iter().any(|namespace| namespace.metadata.name.as_deref() == Some("ns"))
    })
    .await;
    pods.synced().await;
    until(&pods, "the content's end", <[_]>::is_empty).await;
    kubelet.abort();
    cluster.running.abort();
}

/// Waits until the only quota shows this as used.
async fn until_used(quotas: &Informer<ResourceQuota>, what: &str, expect: Value) {
    until(quotas, what, |all| {
        let status = all.first().and_then(|quota| quota.status.as_ref());
        status.is_some_and(|status| serde_json::to_value(&status.used).unwrap() == expect)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_follows_what_its_namespace_holds() {
    let cluster = start().await;
    let client = cluster.client.clone();
    let create = PostParams::default();
    a_namespace_gets_its_own(&client).await;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), "ns");
    let map = |name: &str| object::<ConfigMap>(json!({ "metadata": { "name": name } }));
    maps.create(&create, &map("early")).await.unwrap();
    let quotas_seen = informer::<ResourceQuota>(&client);
    let hard = json!({ "configmaps": "3", "pods": "1" });
    let quota = object(json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } }));
    Api::<ResourceQuota>::namespaced(client.clone(), "ns").create(&create, &quota).await.unwrap();
    // The certificates' ConfigMap is there, too.
    until_used(&quotas_seen, "the first count", json!({ "configmaps": "2", "pods": "0" })).await;

    maps.create(&create, &map("late")).await.unwrap();
    let refused = maps.create(&create, &map("more")).await.unwrap_err().to_string();
    assert!(refused.contains("exceeded quota: q, requested: configmaps=1, used: configmaps=3, limited: configmaps=3"));
    let pods = Api::<Pod>::namespaced(client.clone(), "ns");
    let pod = object(json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } }));
    pods.create(&create, &pod).await.unwrap();
    until_used(&quotas_seen, "both charges", json!({ "configmaps": "3", "pods": "1" })).await;

    maps.delete("late", &DeleteParams::default()).await.unwrap();
    until_used(&quotas_seen, "a ConfigMap's end", json!({ "configmaps": "2", "pods": "1" })).await;
    let done = json!({ "status": { "phase": "Succeeded" } });
    pods.patch_status("p", &PatchParams::default(), &Patch::Strategic(done)).await.unwrap();
    until_used(&quotas_seen, "a Pod's end", json!({ "configmaps": "2", "pods": "0" })).await;
    maps.create(&create, &map("more")).await.unwrap();
    cluster.running.abort();
}
