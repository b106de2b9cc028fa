//! The newest state of a store as a value: what a snapshot holds, whatever its file format, and what a store can be filled with.
//!
//! History is not part of it: whoever watched an older revision hears that it is compacted, and reads anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use imbl::OrdMap;

use crate::checkpoint::{Job, write_checkpoint};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::frame::Identity;
use crate::kv::KeyValue;
use crate::machine::Rebuild;
use crate::membership::Cluster;
use crate::mvcc::State;
use crate::peer::MemberInfo;
use crate::policy::Policy;

/// Keys and leases as of one revision. Values are shared with whoever gave them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    /// At least as high as every revision in `keys`.
    pub revision: i64,
    /// (id, granted time to live in seconds).
    pub leases: Vec<(i64, i64)>,
    /// Every key once, in any order.
    pub keys: Vec<Arc<KeyValue>>,
    /// The records of the policy.
    pub policy: BTreeMap<Bytes, Bytes>,
}

impl Content {
    pub(crate) fn of(state: &State) -> Self {
        let mut keys = Vec::with_capacity(usize::try_from(state.live_keys).unwrap_or(0));
        state.each_newest(&[], Some(&[]), |kv| keys.push(Arc::clone(kv)));
        let leases = state.leases.iter().map(|(id, ttl)| (*id, *ttl)).collect();
        let policy = BTreeMap::clone(&state.policy.records);
        Self { revision: state.revision, leases, keys, policy }
    }

    /// The state of a new cluster of one member that begins with this.
    fn into_state(self, member: u64) -> State {
        let leases: OrdMap<i64, i64> = self.leases.into_iter().collect();
        let cluster = Cluster::of(&[MemberInfo { id: member, ..MemberInfo::default() }]);
        let mut rebuild = Rebuild::new(self.revision, leases, cluster);
        rebuild.policy(Policy::of(self.policy));
        self.keys.into_iter().for_each(|kv| rebuild.base(kv));
        // Where every new cluster begins, see `State::founded`.
        rebuild.finish(1, 1)
    }

    /// Makes an empty directory the first member of a new cluster that holds this content.
    pub(crate) fn fill(self, disk: &dyn Disk, identity: Identity) -> Result<(), OpenError> {
        let failed = |operation| move |source| OpenError::Io { operation, file: disk.describe(), source };
        let names = disk.list().map_err(failed("list"))?;
        if let Some(name) = names.iter().find(|name| name.starts_with("checkpoint-") || name.starts_with("wal-")) {
            return Err(OpenError::NotEmpty { directory: disk.describe(), file: name.clone() });
        }
        let _lock = disk.lock().map_err(|error| OpenError::of_lock(disk, error))?;
        let state = self.into_state(identity.member);
        write_checkpoint(disk, identity, &Job { state, kept: 1 }).map_err(failed("write"))?;
        Ok(())
    }
}
