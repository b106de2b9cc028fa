//! A snapshot of three servers, also where a majority is gone, and a restore: one server becomes the whole cluster, the others say
//! so and join again with empty data directories.

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
