//! `holdfast doctor` beside any server: it hears all of them, and names the one that is dead.

use crate::process::{Place, eventually};
use crate::server::{Cluster, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_hears_every_server_and_names_a_dead_one() {
    let place = Place::new("doctor");
    let servers = ["s1", "s2", "s3"].map(|name| Server::here(&place, name, "127.0.0.1"));
    let mut cluster = Cluster::start(servers.into());
    // Until the last one has its vote, it is missed for nothing.
    cluster.leader().await;
    for server in &cluster.servers {
        says(server, "healthy: nothing ails").await;
    }
    let dead = cluster.id(2);
    cluster.running[2] = None;
    let said = says(&cluster.servers[0], &format!("({dead}) does not answer")).await;
    assert!(said.contains("0 more may fail before writes stop") && said.contains("member remove"), "{said}");
}

/// Asks until the doctor says `what`; all that it said then.
async fn says(server: &Server, what: &str) -> String {
    eventually(what, async || Some(server.doctor()).filter(|said| said.contains(what))).await
}
