//! Three servers on the loopback: joined by token, their leaders killed and ended; who may not join.

use std::time::Duration;

use crate::load::create;
use crate::process::{Place, Running, eventually};
use crate::server::{Cluster, Server};

/// Leaders that are killed.
const KILLS: usize = 3;
/// For a write or read at a server that lives, while the leader is killed. What was seen is printed, a third of a second on two idle
/// processors; a machine that does other things as well may need a multiple.
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_join_by_token_and_lose_their_leader() {
    let place = Place::new("servers");
    let servers = ["s1", "s2", "s3"].map(|name| Server::here(&place, name, "127.0.0.1"));
    let mut cluster = Cluster::start(servers.into());
    assert!(create(&cluster.servers[1].maps().await, "one").await);
    // What one server has answered, every other one shows at once.
    for server in &cluster.servers {
        server.maps().await.get("one").await.unwrap();
    }
    for kill in 1..=KILLS {
        let leader = cluster.leader().await;
        let pause = cluster.pause_while(leader, drop).await;
        println!("kill {kill} of the leader: the slowest write or read at the others took {pause:.0?}");
        assert!(pause <= PAUSE_MAX, "{pause:?}\n{}", cluster.describe());
        cluster.running[leader] = Some(cluster.servers[leader].start(&[]));
    }
    let leader = cluster.leader().await;
    let pause = cluster.pause_while(leader, Running::terminate).await;
    println!("a leader that ends in order: the slowest write or read at the others took {pause:.0?}");
    assert!(pause <= PAUSE_MAX, "{pause:?}\n{}", cluster.describe());
    cluster.running[leader] = Some(cluster.servers[leader].start(&[]));
    println!("{} writes were acknowledged, none is lost", cluster.check_nothing_is_lost().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_ends_and_a_wrong_one_opens_nothing() {
    let place = Place::new("tokens");
    let first = Server::here(&place, "s1", "127.0.0.1");
    let _running = first.start(&[]);
    let stranger = Server::here(&place, "s2", "127.0.0.1");
    let join = |printed: &str| printed.split_whitespace().skip(2).map(str::to_owned).collect::<Vec<_>>();
    let refusal = |join: &[String]| stranger.refusal(&join.iter().map(String::as_str).collect::<Vec<_>>());

    let good = join(&first.command(&["token", "create", "--ttl", "1h", "--description", "for s2"]));
    let list = first.command(&["token", "list"]);
    assert!(list.contains("  valid  ") && list.trim_end().ends_with("for s2"), "{list}");
    let mut wrong = good.clone();
    let last = wrong.last_mut().unwrap();
    last.pop();
    last.push(if good[3].ends_with('x') { 'y' } else { 'x' });
    assert!(refusal(&wrong).contains("Unauthorized"));
    let mut none = good.clone();
    *none.last_mut().unwrap() = "K10abc".to_owned();
    assert!(refusal(&none).contains("none of `holdfast token`"));

    first.command(&["token", "delete", &good[3]]);
    assert!(refusal(&good).contains("Unauthorized"));

    let brief = join(&first.command(&["token", "create", "--ttl", "1s"]));
    let expired = async || first.command(&["token", "list"]).contains("  expired  ").then_some(());
    eventually("the end of the token", expired).await;
    let refusal = refusal(&brief);
    assert!(refusal.contains("the token has expired; `holdfast token`"), "{refusal}");
    assert!(!stranger.data().join("pki/ca.key").exists(), "the stranger was given nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_have_addresses_of_version_6() {
    let place = Place::new("six");
    let cluster = Cluster::start(["s1", "s2"].map(|name| Server::here(&place, name, "::1")).into());
    cluster.leader().await;
    assert!(cluster.members().iter().all(|line| line.contains("  https://[::1]:")), "{:?}", cluster.members());
    assert!(create(&cluster.servers[1].maps().await, "six").await);
    cluster.servers[0].maps().await.get("six").await.unwrap();
}
