//! Store leases for objects that expire (Events): one lease serves many objects, so that a burst of Events costs one.
//!
//! Invariant: an object lives at least its time to live and at most [`SHARED_SECONDS`] longer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base::Clock;
use store::{Kv, KvError};
use tokio::sync::Mutex;

/// How long a lease takes in new objects.
const SHARED_SECONDS: i64 = 60;

struct Shared {
    id: i64,
    until: Duration,
}

/// The lease in use for each time to live.
pub struct Leases {
    kv: Arc<dyn Kv>,
    clock: Arc<dyn Clock>,
    current: Mutex<HashMap<i64, Shared>>,
}

impl Leases {
    pub fn new(kv: Arc<dyn Kv>, clock: Arc<dyn Clock>) -> Self {
        Self { kv, clock, current: Mutex::new(HashMap::new()) }
    }

    /// A lease that ends after `ttl` at the earliest. 0 for no time to live.
    pub async fn lease(&self, ttl: Option<Duration>) -> Result<i64, KvError> {
        let Some(ttl) = ttl else { return Ok(0) };
        let seconds = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX - SHARED_SECONDS).max(1);
        let now = self.clock.monotonic();
        let mut current = self.current.lock().await;
        if let Some(shared) = current.get(&seconds).filter(|shared| shared.until > now) {
            return Ok(shared.id);
        }
        let granted = self.kv.lease_grant(0, seconds + SHARED_SECONDS).await?;
        let until = now + Duration::from_secs(SHARED_SECONDS.unsigned_abs());
        current.insert(seconds, Shared { id: granted.id, until });
        Ok(granted.id)
    }

    /// After [`KvError::LeaseNotFound`]: the next call grants anew.
    pub async fn forget(&self) {
        self.current.lock().await.clear();
    }
}
