//! Leader election over a Lease: of all that ask, one works.
//!
//! As client-go's: the holder renews every 2 s; whoever has seen the Lease unchanged for 15 s of its own time takes it. A
//! holder that couldn't renew for 10 s stops, before anybody else may start. Invariant: two holders never work at the
//! same time as long as their monotonic clocks run equally fast; wall clocks may differ. Does not fence writes.

use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};

/// Who wants to lead what.
#[derive(Debug, Clone)]
pub struct LeaderSpec {
    pub namespace: String,
    /// Name of the Lease, such as `kube-controller-manager`.
    pub lease: String,
    /// Unique among all that ask.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl LeaderSpec {
    /// In `kube-system`, with upstream's times: 15 s, 10 s, 2 s.
    pub fn new(lease: &str, identity: &str) -> Self {
        Self {
            namespace: "kube-system".to_owned(),
            lease: lease.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// The lease could not be renewed in time; the work was stopped.
#[derive(Debug, thiserror::Error)]
#[error("leadership of {lease} is lost")]
pub struct LeadershipLost {
    pub lease: String,
}

/// Waits until this one leads, then runs `work`. Drops it and fails when the leadership is lost; `None` when `stop` came
/// first: then the Lease is given up, so that another one need not wait for its end.
pub async fn run_as_leader<T>(
    client: Client,
    spec: LeaderSpec,
    clock: Arc<dyn Clock>,
    stop: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Result<Option<T>, LeadershipLost> {
    let api = Api::namespaced(client, &spec.namespace);
    let mut elector = Elector { api, spec, clock, seen: Seen::default() };
    let mut stop = std::pin::pin!(stop);
    while !elector.try_claim().await {
        tokio::select! {
            () = tokio::time::sleep(elector.spec.retry_period) => {}
            () = &mut stop => return Ok(None),
        }
    }
    tracing::info!(lease = elector.spec.lease, "leading");
    let ended = {
        let (work, hold) = (std::pin::pin!(work), std::pin::pin!(elector.hold()));
        tokio::select! {
            done = work => Ok(Some(done)),
            () = hold => Err(()),
            () = stop => Ok(None),
        }
    };
    match ended {
        // The work has been dropped: from here on nobody works under this Lease.
        Ok(None) => elector.release().await,
        Err(()) => return Err(LeadershipLost { lease: elector.spec.lease.clone() }),
        Ok(Some(_)) => {}
    }
    Ok(ended.unwrap_or_default())
}

struct Elector {
    api: Api<Lease>,
    spec: LeaderSpec,
    clock: Arc<dyn Clock>,
    seen: Seen,
}

/// The Lease as last seen, and since when (monotonic) it has been so.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
    since: Duration,
}

/// What to do about the Lease.
#[derive(Debug, PartialEq)]
enum Claim {
    /// There is none.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Its holder gave it up, or has been silent for too long.
    Take,
    /// Somebody else holds it.
    Wait,
}

fn decide_claim(lease: Option<&Lease>, seen: &Seen, spec: &LeaderSpec, now: Duration) -> Claim {
    let Some(lease) = lease else { return Claim::Create };
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
    let is_silent =
        lease.metadata.resource_version == seen.version && now.saturating_sub(seen.since) >= spec.lease_duration;
    if holder == spec.identity {
        Claim::Renew
    } else if holder.is_empty() || is_silent {
        Claim::Take
    } else {
        Claim::Wait
    }
}

impl Elector {
    /// One attempt to get or keep the Lease. "Could not ask" is a no.
    async fn try_claim(&mut self) -> bool {
        let current = match self.api.get_opt(&self.spec.lease).await {
            Ok(current) => current,
            Err(error) => {
                tracing::debug!(lease = self.spec.lease, %error, "lease not read");
                return false;
            }
        };
        let now = self.clock.monotonic();
        let claim = decide_claim(current.as_ref(), &self.seen, &self.spec, now);
        let version = current.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
        if self.seen.version != version {
            self.seen = Seen { version, since: now };
        }
        let written = match claim {
            Claim::Wait => return false,
            Claim::Create => self.api.create(&PostParams::default(), &self.derive_lease(None)).await,
            Claim::Renew | Claim::Take => {
                let next = self.derive_lease(current);
                self.api.replace(&self.spec.lease, &PostParams::default(), &next).await
            }
        };
        match written {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(lease = self.spec.lease, %error, "lease not written");
                false
            }
        }
    }

    /// Renews until that has failed for the whole deadline.
    async fn hold(&mut self) {
        let mut renewed = self.clock.monotonic();
        loop {
            tokio::time::sleep(self.spec.retry_period).await;
            let left = self.spec.renew_deadline.saturating_sub(self.clock.monotonic().saturating_sub(renewed));
            let began = self.clock.monotonic();
            match tokio::time::timeout(left, self.try_claim()).await {
                Ok(true) => renewed = began,
                Ok(false) if self.clock.monotonic().saturating_sub(renewed) < self.spec.renew_deadline => {}
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Gives the Lease up, if that goes quickly; else it ends by itself.
    async fn release(&self) {
        let release = async {
            let Some(current) = self.api.get_opt(&self.spec.lease).await? else { return Ok(()) };
            let Some(next) = derive_released(current, &self.spec.identity, self.clock.now()) else { return Ok(()) };
            self.api.replace(&self.spec.lease, &PostParams::default(), &next).await.map(|_| ())
        };
        match tokio::time::timeout(self.spec.retry_period, release).await {
            Ok(Ok(())) => tracing::info!(lease = self.spec.lease, "given up"),
            Ok(Err(error)) => tracing::debug!(lease = self.spec.lease, %error, "not given up"),
            Err(_) => tracing::debug!(lease = self.spec.lease, "not given up in time"),
        }
    }

    fn derive_lease(&self, current: Option<Lease>) -> Lease {
        let now = MicroTime(self.clock.now());
        let before = current.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let is_renewal = before.holder_identity.as_deref() == Some(&self.spec.identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let first = current.is_none();
        let metadata = current.map(|lease| lease.metadata).unwrap_or_else(|| ObjectMeta {
            name: Some(self.spec.lease.clone()),
            namespace: Some(self.spec.namespace.clone()),
            ..ObjectMeta::default()
        });
        let spec = LeaseSpec {
            holder_identity: Some(self.spec.identity.clone()),
            lease_duration_seconds: i32::try_from(self.spec.lease_duration.as_secs()).ok(),
            acquire_time: before.acquire_time.filter(|_| is_renewal).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if is_renewal || first { transitions } else { transitions + 1 }),
            ..before
        };
        Lease { metadata, spec: Some(spec) }
    }
}

/// The Lease without a holder; `None` if it is not ours.
fn derive_released(current: Lease, identity: &str, now: Timestamp) -> Option<Lease> {
    let before = current.spec.unwrap_or_default();
    if before.holder_identity.as_deref() != Some(identity) {
        return None;
    }
    let now = MicroTime(now);
    let spec = LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        acquire_time: Some(now.clone()),
        renew_time: Some(now),
        ..before
    };
    Some(Lease { metadata: current.metadata, spec: Some(spec) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: &str) -> Lease {
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        let spec = LeaseSpec { holder_identity: Some(holder.to_owned()), ..LeaseSpec::default() };
        Lease { metadata, spec: Some(spec) }
    }

    #[test]
    fn a_lease_is_taken_only_from_a_silent_holder() {
        let spec = LeaderSpec::new("work", "me");
        let seen = Seen { version: Some("7".to_owned()), since: Duration::from_secs(100) };
        let check = |lease: Option<Lease>, now, expect| {
            assert_eq!(decide_claim(lease.as_ref(), &seen, &spec, Duration::from_secs(now)), expect);
        };
        check(None, 100, Claim::Create);
        check(Some(lease("me", "7")), 500, Claim::Renew);
        check(Some(lease("other", "7")), 114, Claim::Wait);
        check(Some(lease("other", "7")), 115, Claim::Take);
        check(Some(lease("other", "8")), 115, Claim::Wait);
        check(Some(lease("", "8")), 100, Claim::Take);
    }

    #[test]
    fn only_the_own_lease_is_given_up() {
        let released = derive_released(lease("me", "7"), "me", Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(released.spec.unwrap().holder_identity.as_deref(), Some(""));
        assert!(derive_released(lease("other", "7"), "me", Timestamp::UNIX_EPOCH).is_none());
    }
}
