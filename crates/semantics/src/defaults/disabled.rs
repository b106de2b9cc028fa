//! Fields of a pod spec whose features are off in this version: they are dropped, as upstream drops them.
//!
//! That is when a write is prepared, later than its managed fields are noted: who set such a field is told that it owns it.
//!
//! The features are alpha: users of atomically written files, modes of empty directories, stop signals, TLS of gRPC
//! probes, scheduling groups, eviction responders.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, KeyToPath, Lifecycle, PodSpec, Probe, ProjectedVolumeSource, Volume,
};

pub(crate) fn drop_disabled(spec: &mut PodSpec) {
    spec.scheduling_group = None;
    spec.eviction_responders = None;
    for volume in spec.volumes.iter_mut().flatten() {
        drop_from_volume(volume);
    }
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        drop_stop_signal(&mut container.lifecycle);
        drop_modes([&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]);
    }
    for container in spec.ephemeral_containers.iter_mut().flatten() {
        drop_stop_signal(&mut container.lifecycle);
        drop_modes([&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]);
    }
}

/// A lifecycle of which nothing is left goes with it.
fn drop_stop_signal(slot: &mut Option<Lifecycle>) {
    if let Some(lifecycle) = slot
        && lifecycle.stop_signal.take().is_some()
        && *lifecycle == Lifecycle::default()
    {
        *slot = None;
    }
}

fn drop_modes(probes: [&mut Option<Probe>; 3]) {
    for grpc in probes.into_iter().flatten().filter_map(|probe| probe.grpc.as_mut()) {
        grpc.mode = None;
    }
}

fn drop_from_volume(volume: &mut Volume) {
    if let Some(empty) = &mut volume.empty_dir {
        empty.mode = None;
    }
    if let Some(secret) = &mut volume.secret {
        secret.default_user = None;
        drop_users(&mut secret.items);
    }
    if let Some(config_map) = &mut volume.config_map {
        config_map.default_user = None;
        drop_users(&mut config_map.items);
    }
    if let Some(downward) = &mut volume.downward_api {
        downward.default_user = None;
        drop_file_users(&mut downward.items);
    }
    if let Some(projected) = &mut volume.projected {
        drop_from_projected(projected);
    }
}

fn drop_from_projected(projected: &mut ProjectedVolumeSource) {
    projected.default_user = None;
    for source in projected.sources.iter_mut().flatten() {
        if let Some(secret) = &mut source.secret {
            drop_users(&mut secret.items);
        }
        if let Some(config_map) = &mut source.config_map {
            drop_users(&mut config_map.items);
        }
        if let Some(downward) = &mut source.downward_api {
            drop_file_users(&mut downward.items);
        }
        if let Some(token) = &mut source.service_account_token {
            token.user = None;
        }
        if let Some(bundle) = &mut source.cluster_trust_bundle {
            bundle.user = None;
        }
        if let Some(certificate) = &mut source.pod_certificate {
            certificate.user = None;
        }
    }
}

fn drop_users(items: &mut Option<Vec<KeyToPath>>) {
    for item in items.iter_mut().flatten() {
        item.user = None;
    }
}

fn drop_file_users(items: &mut Option<Vec<DownwardAPIVolumeFile>>) {
    for item in items.iter_mut().flatten() {
        item.user = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn what_is_off_is_dropped() {
        let mut spec: PodSpec = from_value(json!({
            "containers": [{"name": "c", "lifecycle": {"stopSignal": "SIGUSR1"}, "livenessProbe": {"grpc": {"port": 1, "mode": "TLS"}}}],
            "schedulingGroup": {"podGroupName": "g"},
            "volumes": [
                {"name": "e", "emptyDir": {"mode": 511}},
                {"name": "s", "secret": {"secretName": "s", "defaultUser": 1, "items": [{"key": "k", "path": "p", "user": 2}]}},
            ],
        }))
        .unwrap();
        drop_disabled(&mut spec);
        let expect = json!({
            "containers": [{"name": "c", "livenessProbe": {"grpc": {"port": 1}}}],
            "volumes": [
                {"name": "e", "emptyDir": {}},
                {"name": "s", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
            ],
        });
        assert_eq!(json!(spec), expect);
    }
}
