//! Several stores of one process as a cluster: the front, the threads and a transport, in real time. What can go wrong between
//! members is the simulation's.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use base::SystemClock;
use bytes::Bytes;
use store::{
    Config, Kv, MemberChange, MemberChangeError, MemberInfo, Op, OutgoingSnapshot, Put, RangeRequest, SimDisk, Store,
    Transport, Txn,
};

/// All members that are up.
#[derive(Clone, Default)]
struct Network(Arc<Mutex<HashMap<u64, Weak<Store>>>>);

struct Wire {
    me: u64,
    network: Network,
}

impl Network {
    fn find(&self, id: u64) -> Option<Arc<Store>> {
        self.0.lock().unwrap().get(&id).and_then(Weak::upgrade)
    }

    fn open(&self, me: u64, founders: &[u64], disk: &SimDisk) -> Arc<Store> {
        let info = |id: &u64| MemberInfo { id: *id, peer_urls: vec![format!("mem:{id}")], ..MemberInfo::default() };
        let config = Config {
            cluster_id: Some(5),
            member_id: Some(me),
            joining: !founders.contains(&me),
            initial_members: founders.iter().map(info).collect(),
            log_entries_kept: 20,
            ..Config::default()
        };
        let wire = Arc::new(Wire { me, network: self.clone() });
        let store = Store::open(config, Arc::new(disk.clone()), Arc::new(SystemClock::new()), wire).unwrap();
        let store = Arc::new(store);
        self.0.lock().unwrap().insert(me, Arc::downgrade(&store));
        store
    }
}

impl Transport for Wire {
    fn send(&self, to: u64, frame: Bytes) {
        if let Some(store) = self.network.find(to) {
            store.receive(self.me, frame);
        }
    }

    fn members_changed(&self, _members: &[MemberInfo]) {}

    fn send_snapshot(&self, to: u64, snapshot: OutgoingSnapshot) {
        let (me, network) = (self.me, self.network.clone());
        std::thread::spawn(move || {
            let mut body = Vec::new();
            snapshot.write_to(&mut body).unwrap();
            let taken = network.find(to).map(|store| store.receive_snapshot(me, snapshot.header, &mut body.as_slice()));
            if let Some(sender) = network.find(me) {
                sender.snapshot_sent(to, matches!(taken, Some(Ok(()))));
            }
        });
    }
}

fn put(key: &str) -> Txn {
    Txn::of(Op::Put(Put { key: key.to_owned().into(), value: "v".into(), ..Put::default() }))
}

async fn count(store: &Store) -> i64 {
    let all = RangeRequest { key: "\0".into(), end: Some("".into()), count_only: true, ..RangeRequest::default() };
    store.range(all).await.unwrap().count
}

async fn leader(store: &Store) -> u64 {
    store.subscribe_leader().wait_for(|view| view.leader != 0).await.unwrap().leader
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_serve_move_their_leader_grow_and_shrink() {
    let network = Network::default();
    let disks: Vec<_> = (0..4).map(|_| SimDisk::new()).collect();
    let founders = [1, 2, 3];
    let mut stores: Vec<_> = founders.iter().map(|id| network.open(*id, &founders, &disks[*id as usize - 1])).collect();
    for (n, store) in stores.iter().enumerate() {
        store.txn(put(&format!("k{n}"))).await.unwrap();
        assert_eq!(count(store).await, n as i64 + 1, "every member sees what was acknowledged anywhere");
    }
    let lease = stores[0].lease_grant(7, 30).await.unwrap();
    for store in &stores {
        assert_eq!(store.lease_keep_alive(lease.id).await, Ok(30));
    }

    let before = leader(&stores[0]).await;
    let to = founders.into_iter().find(|id| *id != before).unwrap();
    stores[0].transfer_leadership(to).await.unwrap();
    assert_eq!(leader(&stores[0]).await, to);
    stores[1].txn(put("after the move")).await.unwrap();

    // A learner comes by snapshot, since the log's beginning is gone, and becomes a voter.
    let joins = MemberChange::AddLearner { id: 4, peer_urls: vec!["mem:4".into()] };
    assert_eq!(stores[0].change_members(joins.clone()).await.unwrap().len(), 4);
    assert_eq!(stores[0].change_members(joins).await, Err(MemberChangeError::IdUsed { id: 4 }));
    let not_yet = stores[1].change_members(MemberChange::Promote { id: 4 }).await;
    assert_eq!(not_yet, Err(MemberChangeError::LearnerNotReady { id: 4 }));
    stores.push(network.open(4, &founders, &disks[3]));
    while stores[1].change_members(MemberChange::Promote { id: 4 }).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&stores[3]).await, 4);

    // The leader itself is removed: it hands over, and learns why it ends.
    let leader_now = leader(&stores[0]).await;
    // Member n is at position n - 1.
    let removed = stores.remove(leader_now as usize - 1);
    let members = stores[0].change_members(MemberChange::Remove { id: leader_now }).await.unwrap();
    assert_eq!(members.len(), 3);
    assert!(removed.failed().await.contains("was removed from the cluster"));
    stores[0].txn(put("after the removal")).await.unwrap();
    for store in &stores {
        assert_eq!(count(store).await, 5);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_a_client_gets_a_clear_error_and_local_reads() {
    let network = Network::default();
    let (first, second) = (SimDisk::new(), SimDisk::new());
    let one = network.open(1, &[1, 2], &first);
    let two = network.open(2, &[1, 2], &second);
    one.txn(put("k")).await.unwrap();
    assert_eq!(count(&two).await, 1);
    two.close();
    drop(two);
    let linearizable = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let (write, read) = tokio::join!(one.txn(put("lost")), one.range(linearizable));
    let (write, read) = (write.unwrap_err().to_string(), read.unwrap_err().to_string());
    assert!(write.contains("have happened") || write.contains("no leader"), "{write}");
    assert!(read.contains("no leader"), "{read}");
    let local = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    assert_eq!(one.range(local).await.unwrap().count, 1);
}
