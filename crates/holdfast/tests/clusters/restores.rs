//! A snapshot of three servers, also where a majority is gone, and a restore: one server becomes the whole cluster, the others say
//! so and join again with empty data directories. A cluster whose keys for Secrets are a file of the user's.

use k8s_openapi::api::core::v1::Secret;
use kube::Api;

use crate::load::create;
use crate::process::Place;
use crate::server::{Cluster, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_go_back_to_a_snapshot_by_one_of_them() {
    let place = Place::new("restores");
    let file = |name: &str| place.0.join(name).display().to_string();
    let (before, without_majority) = (file("before"), file("without-majority"));
    let mut cluster = Cluster::start(["s1", "s2", "s3"].map(|name| Server::here(&place, name, "127.0.0.1")).into());
    let leader = cluster.leader().await;
    let restored = (leader + 1) % 3;
    let others = [leader, (leader + 2) % 3];
    assert!(create(&cluster.servers[leader].maps().await, "kept").await);
    cluster.servers[restored].store(&["snapshot", &before]);
    assert!(create(&cluster.servers[leader].maps().await, "undone").await);

    let refused = cluster.servers[restored].store_refusal(&["restore", &before]);
    assert!(refused.contains("2 other servers run in this cluster") && refused.contains("--alone"), "{refused}");
    cluster.servers[others[0]].maps().await.get("undone").await.expect("a refused restore changes nothing");

    let said = cluster.servers[restored].store(&["restore", "--alone", &before]);
    assert!(said.contains("restored; what was there before is kept"), "{said}");
    let maps = cluster.servers[restored].maps().await;
    maps.get("kept").await.unwrap();
    assert!(maps.get_opt("undone").await.unwrap().is_none(), "the restored state is the snapshot's");
    assert!(create(&maps, "after").await, "the one is a majority of itself");
    for at in others {
        assert!(!cluster.running[at].take().unwrap().wait(), "a server that was taken out ends with an error");
        let again = cluster.servers[at].refusal(&[]);
        assert!(again.contains("this server was removed from its cluster"), "{again}\n{}", cluster.servers[at].log());
    }
    for name in ["s4", "s5"] {
        cluster.add(Server::here(&place, name, "127.0.0.1"));
    }
    cluster.leader().await;
    cluster.servers[4].maps().await.get("after").await.unwrap();

    for at in [3, 4] {
        drop(cluster.running[at].take());
    }
    let refused = cluster.servers[restored].store_refusal(&["snapshot", &without_majority]);
    assert!(refused.contains("no majority of the servers answers; --stale saves"), "{refused}");
    let said = cluster.servers[restored].store(&["snapshot", "--stale", &without_majority]);
    assert!(said.contains(" keys at revision "), "{said}");

    // The majority does not come back: the one that is left goes on by itself.
    cluster.running[restored].take().unwrap().terminate();
    cluster.servers[restored].store(&["restore", &without_majority]);
    cluster.running[restored] = Some(cluster.servers[restored].start(&[]));
    assert_eq!(cluster.members().len(), 1);
    cluster.servers[restored].maps().await.get("after").await.unwrap();
}

/// Both servers, the snapshot and the cluster restored from it need the file, and say so without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_keys_are_a_file_grows_and_is_restored_with_it() {
    let place = Place::new("given-keys");
    let file = |name: &str| place.0.join(name).display().to_string();
    let (keys, snapshot, saved_keys) = (file("keys.yaml"), file("snapshot"), file("snapshot.keys"));
    std::fs::write(&keys, KEYS).unwrap();
    let given = ["--encryption-provider-config", keys.as_str()];
    let [first, second, third] = ["s1", "s2", "s3"].map(|name| Server::here(&place, name, "127.0.0.1"));
    let mut running = vec![first.start(&given)];
    let secret = Secret { string_data: Some([("a".to_owned(), "b".to_owned())].into()), ..Secret::default() };
    let named =
        Secret { metadata: kube::core::ObjectMeta { name: Some("kept".into()), ..Default::default() }, ..secret };
    Api::<Secret>::default_namespaced(first.client().await).create(&Default::default(), &named).await.unwrap();

    let join = first.token();
    let join: Vec<&str> = join.iter().map(String::as_str).collect();
    let refused = second.refusal(&join);
    assert!(refused.contains("copy it from another server and give it with --encryption-provider-config"), "{refused}");
    let members = first.command(&["member", "list"]);
    assert_eq!(members.lines().count(), 1, "who is refused has no place: {members}");
    running.push(second.start(&[&join[..], &given].concat()));
    Api::<Secret>::default_namespaced(second.client().await).get("kept").await.unwrap();

    let said = first.store(&["snapshot", "--with-keys", &snapshot]);
    assert!(said.contains("the keys of Secrets are in the file of --encryption-provider-config"), "{said}");
    drop(running);
    let restore = ["restore", "--keys", saved_keys.as_str(), snapshot.as_str()];
    let refused = third.store_refusal(&restore);
    assert!(refused.contains("encrypted with \"aesgcm:v1:mine\"") && !third.data().join("pki").exists(), "{refused}");
    let said = third.store(&[&restore[..], &given].concat());
    assert!(said.contains("start it with --encryption-provider-config"), "{said}");
    let refused = third.refusal(&[]);
    assert!(refused.contains("give --encryption-provider-config as before"), "{refused}");
    let _third = third.start(&given);
    let kept = Api::<Secret>::default_namespaced(third.client().await).get("kept").await.unwrap();
    assert_eq!(kept.data.unwrap()["a"].0, b"b");
}

/// One key of 256 bits, of this test alone.
const KEYS: &str = "apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aesgcm: {keys: [{name: mine, secret: c2VjcmV0IGlzIHNlY3VyZSwgb3IgaXMgaXQgbm90PyE=}]}
";
