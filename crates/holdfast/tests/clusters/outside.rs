//! A server whose state is in an etcd of three members loses one of them after the other, and all at once.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use tokio_util::task::AbortOnDropHandle;

use crate::load::{Writer, create};
use crate::outside_etcd::{Etcd, STRANGER, USER};
use crate::process::{Place, eventually};
use crate::server::Server;

/// At once, so that some are always under way.
const WRITERS: usize = 4;
/// Of each, before and after a member is killed.
const WRITES: usize = 10;
/// For a write or read while the leader is killed: etcd elects another within 2 s of its default settings. What is handed to a member that
/// still waits for the dead one is lost for 7 s.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Is in every namespace.
const OF_ITSELF: &str = "kube-root-ca.crt";

/// Names of the ConfigMaps that a watch saw.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    /// Watches from `revision` on, on one connection that never breaks; what comes is newer each time.
    fn watch(&self, maps: kube::Api<ConfigMap>, revision: String) -> AbortOnDropHandle<()> {
        let (seen, mut newest): (_, u64) = (self.clone(), revision.parse().unwrap());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let events = maps.watch(&WatchParams::default().disable_bookmarks(), &revision).await.unwrap();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.try_next().await.unwrap() {
                let WatchEvent::Added(map) = event else { panic!("nothing but creates: {event:?}") };
                let revision = map.resource_version().unwrap().parse().unwrap();
                assert!(revision > newest, "{revision} after {newest}");
                newest = revision;
                if map.name_any() != OF_ITSELF {
                    seen.0.lock().unwrap().push(map.name_any());
                }
            }
        }))
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.0.lock().unwrap().clone();
        names.sort();
        names
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_an_outside_etcd_are_killed_and_return() {
    let place = Place::new("outside");
    let mut etcd = Etcd::start(&place).await;
    let server = Server::here(&place, "s1", "127.0.0.1");
    refuses_who_may_not(&etcd, &server);
    let flags = etcd.flags(USER);
    let _running = server.start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let maps = server.maps().await;
    let begin = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let seen = Seen::default();
    let watch = seen.watch(maps.clone(), begin);

    let mut names = Vec::new();
    for kill in ["the leader", "a follower", "the leader again"] {
        let leader = etcd.leader().await;
        let victim = if kill == "a follower" { (leader + 1) % 3 } else { leader };
        let mut writers = Vec::new();
        for at in 0..WRITERS {
            writers.push(server.writer(&format!("{}-{at}", kill.replace(' ', "-"))).await);
        }
        more(&mut writers).await;
        writers.iter().for_each(Writer::measure);
        etcd.kill(victim);
        more(&mut writers).await;
        etcd.run(victim);
        etcd.leader().await;
        more(&mut writers).await;
        let mut longest = Duration::ZERO;
        for writer in writers {
            let written = writer.end().await;
            longest = longest.max(written.longest);
            names.extend(written.names);
        }
        println!("{kill} was killed: the slowest write or read took {} ms", longest.as_millis());
        assert!(longest <= PAUSE_MAX, "{kill}: {longest:?}\n{}", server.log());
    }

    (0..3).for_each(|at| etcd.kill(at));
    let refused = refusal_of_create(&server).await;
    assert!(refused.contains("store unavailable: 127.0.0.1:") && refused.contains("refused"), "{refused}");
    (0..3).for_each(|at| etcd.run(at));
    eventually("a write once they have returned", async || create(&maps, "after").await.then_some(())).await;
    names.push("after".to_owned());

    names.sort();
    eventually("the watch has seen all", async || (seen.names().len() >= names.len()).then_some(())).await;
    assert!(seen.names() == names, "the watch has a gap or a repeat");
    drop(watch);
    let listed = maps.list(&ListParams::default()).await.unwrap();
    let listed =
        listed.items.iter().map(|map| map.name_any()).filter(|name| name != OF_ITSELF).collect::<BTreeSet<_>>();
    assert_eq!(listed, names.iter().cloned().collect(), "nothing is lost");
    println!("{} writes were acknowledged, none is lost", names.len());
}

async fn more(writers: &mut [Writer]) {
    for writer in writers {
        writer.more(WRITES).await;
    }
}

async fn refusal_of_create(server: &Server) -> String {
    let maps: kube::Api<ConfigMap> = kube::Api::default_namespaced(server.client_that_asks_once().await);
    let mut map = ConfigMap::default();
    map.metadata.name = Some("meanwhile".to_owned());
    maps.create(&PostParams::default(), &map).await.unwrap_err().to_string()
}

/// Who has no certificate or no permission hears in one line what to do.
fn refuses_who_may_not(etcd: &Etcd, server: &Server) {
    let check = |flags: Vec<String>, words: &[&str]| {
        let refused = server.refusal(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        let line = refused.lines().last().unwrap_or_default();
        assert!(words.iter().all(|word| line.contains(word)), "{refused}");
    };
    let nobody = ["it wants a client certificate of its own authority", "--datastore-certfile"];
    check(etcd.flags_without_certificate(), &nobody);
    check(etcd.flags(STRANGER), &["permission denied", "/registry/", "compact_rev_key"]);
}
