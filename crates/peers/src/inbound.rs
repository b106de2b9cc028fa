//! Who is connected to this member: one process for each member id, and whom this member refuses.
//!
//! Invariant: frames of two processes with one id are never mixed: the second is refused while the first is heard, and takes its
//! place (closing its connections) once the first has been silent for [`SILENT_AFTER`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::hello::{Hello, VERSION, Verdict};

/// Peers ping every second.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// More member ids than this are not kept.
const SOURCES_MAX: usize = 64;
/// The same refusal is logged again after this.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What this member knows of itself and the cluster, for judging who may talk to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OwnIds {
    pub(crate) cluster: u64,
    pub(crate) member: u64,
    pub(crate) instance: u64,
}

/// Whether `hello` is welcome, as far as the ids say. Pure.
pub(crate) fn decide_verdict(hello: &Hello, own: &OwnIds, removed: &BTreeSet<u64>) -> Verdict {
    let refused = |reason: String| Verdict::Refused { reason };
    let Hello { version, cluster, from, to, instance, .. } = *hello;
    if version != VERSION {
        return refused(format!(
            "version {version} of the protocol between members, but this member speaks version {VERSION}"
        ));
    }
    if hello.purpose.is_question() {
        return Verdict::Welcome;
    }
    if cluster != own.cluster {
        return refused(format!("cluster {cluster:x}, but this member belongs to cluster {:x}", own.cluster));
    }
    if removed.contains(&from) {
        return Verdict::Removed { reason: format!("member {from:x} has been removed from the cluster") };
    }
    if from == own.member {
        let what = if instance == own.instance { "this process itself" } else { "another process with this id" };
        return refused(format!("member id {from:x} is used twice: {what} listens here"));
    }
    if to != own.member {
        return refused(format!("member {to:x} is looked for at this URL, but {:x} listens here", own.member));
    }
    Verdict::Welcome
}

/// The processes that are connected.
#[derive(Default)]
pub(crate) struct Inbound {
    sources: Mutex<HashMap<u64, Source>>,
    told: Mutex<BTreeMap<String, Instant>>,
}

struct Source {
    instance: u64,
    address: SocketAddr,
    connections: usize,
    heard: Arc<Mutex<Instant>>,
    /// Ends its connections.
    superseded: CancellationToken,
}

/// One admitted connection; counts until it is dropped.
pub(crate) struct Admission {
    inbound: Arc<Inbound>,
    member: u64,
    instance: u64,
    heard: Arc<Mutex<Instant>>,
    pub(crate) superseded: CancellationToken,
}

impl Inbound {
    fn sources(&self) -> MutexGuard<'_, HashMap<u64, Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection of the process that said `hello`, or says why not.
    pub(crate) fn admit(self: &Arc<Self>, hello: &Hello, address: SocketAddr) -> Result<Admission, String> {
        let mut sources = self.sources();
        if sources.len() >= SOURCES_MAX && !sources.contains_key(&hello.from) {
            return Err(format!("{SOURCES_MAX} members are connected already"));
        }
        if let Some(old) = sources.get(&hello.from).filter(|old| old.instance != hello.instance) {
            if old.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < SILENT_AFTER {
                return Err(format!(
                    "member id {:x} is used twice: by another process, at {}",
                    hello.from, old.address
                ));
            }
            old.superseded.cancel();
            sources.remove(&hello.from);
        }
        let source = sources.entry(hello.from).or_insert_with(|| Source {
            instance: hello.instance,
            address,
            connections: 0,
            heard: Arc::new(Mutex::new(Instant::now())),
            superseded: CancellationToken::new(),
        });
        source.connections += 1;
        Ok(Admission {
            inbound: Arc::clone(self),
            member: hello.from,
            instance: hello.instance,
            heard: Arc::clone(&source.heard),
            superseded: source.superseded.clone(),
        })
    }

    /// Ends the connections of a member that is none any more: it will ask for new ones, and learn why it gets none.
    pub(crate) fn expel(&self, member: u64) {
        if let Some(source) = self.sources().remove(&member) {
            source.superseded.cancel();
        }
    }

    /// True when this refusal has not been logged lately.
    pub(crate) fn is_news(&self, reason: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, since| since.elapsed() < TELL_AGAIN);
        if told.len() >= SOURCES_MAX || told.contains_key(reason) {
            return false;
        }
        told.insert(reason.to_owned(), Instant::now());
        true
    }
}

impl Admission {
    /// Something came.
    pub(crate) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut sources = self.inbound.sources();
        let Some(source) = sources.get_mut(&self.member).filter(|source| source.instance == self.instance) else {
            return;
        };
        source.connections -= 1;
        if source.connections == 0 {
            sources.remove(&self.member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::Purpose;

    const OWN: OwnIds = OwnIds { cluster: 0xc, member: 1, instance: 100 };

    fn hello() -> Hello {
        Hello { version: VERSION, purpose: Purpose::Urgent, cluster: 0xc, from: 2, to: 1, instance: 200 }
    }

    #[test]
    fn who_is_refused_and_why() {
        let check = |hello: Hello, expect: Option<&str>| {
            let reason = match decide_verdict(&hello, &OWN, &BTreeSet::from([9])) {
                Verdict::Welcome => None,
                Verdict::Refused { reason } | Verdict::Removed { reason } => Some(reason),
            };
            assert_eq!(reason.as_deref(), expect);
        };
        check(hello(), None);
        check(
            Hello { version: 2, ..hello() },
            Some("version 2 of the protocol between members, but this member speaks version 1"),
        );
        check(Hello { cluster: 0xd, ..hello() }, Some("cluster d, but this member belongs to cluster c"));
        check(Hello { from: 9, ..hello() }, Some("member 9 has been removed from the cluster"));
        check(
            Hello { from: 1, ..hello() },
            Some("member id 1 is used twice: another process with this id listens here"),
        );
        check(
            Hello { from: 1, instance: 100, ..hello() },
            Some("member id 1 is used twice: this process itself listens here"),
        );
        check(Hello { to: 3, ..hello() }, Some("member 3 is looked for at this URL, but 1 listens here"));
        for purpose in [Purpose::Members, Purpose::Figures] {
            check(Hello { purpose, cluster: 0, from: 0, to: 0, ..hello() }, None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_process_with_one_id_waits_until_the_first_is_silent() {
        let inbound = Arc::new(Inbound::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let first = inbound.admit(&hello(), address).unwrap();
        let other = Hello { instance: 201, ..hello() };
        let refusal = inbound.admit(&other, address).err().unwrap();
        assert_eq!(refusal, "member id 2 is used twice: by another process, at 127.0.0.1:7");
        tokio::time::advance(SILENT_AFTER).await;
        first.heard();
        assert!(inbound.admit(&other, address).is_err());
        tokio::time::advance(SILENT_AFTER).await;
        let second = inbound.admit(&other, address).unwrap();
        assert!(first.superseded.is_cancelled() && !second.superseded.is_cancelled());
        // The end of the superseded connection does not count for the new one.
        drop(first);
        assert!(inbound.admit(&hello(), address).is_err());
        drop(second);
        assert!(inbound.admit(&hello(), address).is_ok());
    }
}
