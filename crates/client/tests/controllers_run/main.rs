//! Informers, runner, recorder and garbage collection together, over an in-process client and the simulated API.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod simulated_api;

use std::sync::Arc;

use base::SystemClock;
use client::{Informer, Informers, Observed, Runner, WatchConfig};
use controllers::deployment::DeploymentController;
use controllers::garbage::GarbageCollector;
use controllers::replicas::ReplicaController;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Event, Pod, PodCondition, PodStatus};
use reconcile::harness::World;
use reconcile::{Change, Registrar as _};
use serde_json::{from_value, json};
use simulated_api::SimulatedApi;

fn deployment(replicas: i32) -> Deployment {
    from_value(json!({
        "metadata": { "name": "web", "namespace": "ns" },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "a", "image": "v1" }] } },
        },
    }))
    .unwrap()
}

fn make_pods_ready(world: &mut World) {
    world.update_each::<Pod>(|pod| {
        let ready = PodCondition { type_: "Ready".into(), status: "True".into(), ..PodCondition::default() };
        pod.status =
            Some(PodStatus { phase: Some("Running".into()), conditions: Some(vec![ready]), ..PodStatus::default() });
    });
}

/// Whether the Deployment is through with its rollout and has this many pods, none of them too many.
fn is_complete(world: &mut World, replicas: i32) -> bool {
    make_pods_ready(world);
    let Some(web) = world.get::<Deployment>("ns", "web") else { return false };
    let status = web.status.unwrap_or_default();
    status.observed_generation == web.metadata.generation
        && status.updated_replicas == Some(replicas)
        && status.available_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && world.list::<Pod>().len() == replicas as usize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_comes_rolls_and_goes() {
    let clock = Arc::new(SystemClock::new());
    let api = SimulatedApi::new(World::new(base::Clock::now(&*clock)));
    let mut runner = Runner::new(Informers::new(client::in_process(api.clone())), clock, 1);
    runner.register(ReplicaController::<ReplicaSet>::default());
    runner.register(DeploymentController);
    runner.register(GarbageCollector);
    let running = tokio::spawn(runner.run());

    api.with(|world| world.add(&deployment(10)));
    api.until(|world| is_complete(world, 10)).await;
    api.with(|world| {
        world.update_each::<Deployment>(|web| {
            web.spec.template.spec.as_mut().unwrap().containers[0].image = Some("v2".into())
        })
    });
    api.until(|world| is_complete(world, 10)).await;
    // Expectations hold: one ReplicaSet a template, and not one pod more than asked for was ever created.
    assert_eq!(api.with(|world| world.list::<ReplicaSet>().len()), 2);
    api.until(|world| {
        let events = world.list::<Event>();
        let told = events.iter().filter(|event| event.reason.as_deref() == Some("ScalingReplicaSet"));
        told.filter_map(|event| event.message.clone()).any(|message| message.contains("from 0 to 10"))
    })
    .await;

    api.with(|world| world.delete::<Deployment>("ns", "web", None));
    api.until(|world| world.list::<Pod>().is_empty() && world.list::<ReplicaSet>().is_empty()).await;
    running.abort();
}

#[tokio::test]
async fn an_informer_follows_and_tells() {
    let api = SimulatedApi::new(World::new(base::Clock::now(&SystemClock::new())));
    api.with(|world| world.add(&deployment(1)));
    let informer = Informer::<Deployment>::spawn(client::in_process(api.clone()), WatchConfig::default());
    informer.synced().await;
    assert_eq!(informer.get("ns", "web").unwrap().spec.replicas, Some(1));
    let mut changes = informer.changes();
    api.with(|world| world.update_each::<Deployment>(|web| web.spec.replicas = Some(2)));
    let Some(Observed::Changed(Change::Applied { old: Some(old), new })) = changes.next().await else {
        panic!("no change")
    };
    assert_eq!((old.spec.replicas, new.spec.replicas), (Some(1), Some(2)));
    api.with(|world| world.delete::<Deployment>("ns", "web", None));
    assert!(matches!(changes.next().await, Some(Observed::Changed(Change::Deleted(_)))));
    assert!(informer.list().is_empty());
}
