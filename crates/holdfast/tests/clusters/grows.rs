//! A cluster of machines grows from one server to five and shrinks to three, under a load of writes; a dead server is replaced by
//! another of its name; one that was removed says so.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Endpoints;

use crate::machines::Machines;
use crate::process::{Place, eventually};
use crate::server::{Cluster, Server};

/// For a write or read while a machine goes without a word: below a second on two idle processors; a machine that does other things as
/// well may need a multiple.
const SILENT_PAUSE_MAX: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_becomes_five_and_three_and_a_dead_one_leaves_no_ghost() {
    let Some(mut machines) = Machines::new() else { return };
    let place = Place::new("grows");
    let server = |directory: &str, (address, words): (std::net::IpAddr, Vec<String>)| {
        Server::on(&place, directory, address, words)
    };
    let places = ["s1", "s2", "s3", "s4", "s5"].map(|name| machines.add(name));
    let mut cluster = Cluster::start(vec![server("s1", places[0].clone())]);
    let mut writer = cluster.servers[0].writer("grows").await;
    writer.more(100).await;
    writer.measure();
    for (name, at) in ["s2", "s3", "s4", "s5"].into_iter().zip(1..) {
        cluster.add(server(name, places[at].clone()));
        cluster.leader().await;
        writer.more(20).await;
    }
    assert_endpoints(&cluster).await;

    // One leaves as it runs.
    assert_eq!(cluster.remove(1), 4);
    assert!(!cluster.running[1].take().unwrap().wait(), "a removed server ends with an error");
    let said = cluster.servers[1].log();
    let removed = "this server was removed from its cluster";
    assert!(said.contains(removed), "{said}");
    let again = cluster.servers[1].refusal(&[]);
    assert!(again.contains(removed) && again.contains("`holdfast down` deletes it"), "{again}");
    let token = cluster.servers[0].token();
    let rejoins = cluster.servers[1].refusal(&token.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(rejoins.contains(removed), "{rejoins}");

    // One dies, is removed as dead, and another of its name and address takes its place.
    drop(cluster.running[2].take());
    assert_eq!(cluster.remove(2), 3);
    cluster.add(server("s3-again", places[2].clone()));
    cluster.leader().await;
    assert_eq!(cluster.remove(3), 3);
    drop(cluster.running[3].take());
    cluster.leader().await;
    let names: BTreeSet<String> =
        cluster.members().iter().map(|line| line.split_whitespace().nth(1).unwrap().to_owned()).collect();
    assert_eq!(names, ["s1", "s3", "s5"].map(str::to_owned).into());
    assert_endpoints(&cluster).await;
    assert_leases(&cluster).await;
    writer.more(20).await;
    let longest = cluster.keep(writer.end().await);
    println!("1 -> 5 -> 3 servers: the slowest write or read took {longest:.0?}");

    let leader = cluster.leader().await;
    // The machine in the place of the third server is the third, too.
    let number = if leader == 5 { 3 } else { leader + 1 };
    let mut silent = None;
    let pause = cluster
        .pause_while(leader, |running| {
            machines.plug(number, false);
            silent = Some(running);
        })
        .await;
    println!("the leader's machine is cut off: the slowest write or read at the others took {pause:.0?}");
    assert!(pause <= SILENT_PAUSE_MAX, "{pause:?}\n{}", cluster.describe());
    machines.plug(number, true);
    cluster.running[leader] = silent;
    cluster.leader().await;
    println!("{} writes were acknowledged, none is lost", cluster.check_nothing_is_lost().await);
}

/// The `kubernetes` Service leads to all servers that run and to no other.
async fn assert_endpoints(cluster: &Cluster) {
    let expected: BTreeSet<String> = cluster.up().map(|at| cluster.servers[at].address.to_string()).collect();
    let at = cluster.up().next().unwrap();
    let endpoints = kube::Api::<Endpoints>::default_namespaced(cluster.servers[at].client().await);
    let agree = async || {
        let subsets = endpoints.get("kubernetes").await.ok()?.subsets.unwrap_or_default();
        let found: BTreeSet<String> =
            subsets.iter().flat_map(|s| s.addresses.iter().flatten()).map(|a| a.ip.clone()).collect();
        (found == expected).then_some(())
    };
    eventually("the endpoints name the servers that run", agree).await;
}

/// Controllers and scheduler are led by members.
async fn assert_leases(cluster: &Cluster) {
    let at = cluster.up().next().unwrap();
    let leases = kube::Api::<Lease>::namespaced(cluster.servers[at].client().await, "kube-system");
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let held = async || {
            let holder = leases.get(name).await.ok()?.spec?.holder_identity?;
            let id = holder.rsplit('_').next()?.trim_start_matches('0').to_owned();
            cluster.members().iter().any(|line| line.starts_with(&id)).then_some(())
        };
        eventually("a member holds the Lease", held).await;
    }
}
