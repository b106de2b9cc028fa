//! etcd's database: its buckets to the store's [`Content`] and back.
//!
//! ```text
//! key    revision u64 | '_' | sub revision u64 | 't' if deleted (big endian)  ->  mvccpb.KeyValue
//! lease  id u64, big endian                                                    ->  leasepb.Lease
//! meta   consistent_index, term, finishedCompactRev, scheduledCompactRev, storageVersion
//! auth, authUsers, authRoles                                                    ->  see `auth_entries`
//! ```
//!
//! Read are the newest state, the leases, and users and roles; written is a database that is compacted at its newest revision.
//! Members are of the cluster that was, not of its data: they are not read. Source: etcd 3.7.3, `server/storage/{schema,mvcc}`.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Seek};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use store::{Content, KeyValue};

use crate::ETCD_CLUSTER_VERSION;
use crate::access::rules::Rules;
use crate::bolt::{BoltError, BoltReader, Bucket, Stored, write_database};
use crate::proto::authpb::{AccessState, Role, User};
use crate::proto::leasepb::Lease;
use crate::proto::mvccpb;
use crate::range_options::{parse_kv, wire_kv};

/// Every bucket that etcd opens without making it; ascending.
const BUCKETS: [&str; 10] =
    ["alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"];
const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";
const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
const STORAGE_VERSION: &[u8] = b"storageVersion";
const AUTH_ENABLED: &[u8] = b"authEnabled";
const AUTH_REVISION: &[u8] = b"authRevision";
const REVISION_BYTES: usize = 17;
/// A cluster begins at this revision, before its first write.
const FIRST_REVISION: i64 = 1;
/// Raft's index and term in what is written: etcd wants them there, and sets its own when it restores.
const BEGIN: u64 = 1;

/// Why a database is not taken.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    #[error(transparent)]
    File(#[from] BoltError),
    #[error("a record of the bucket {bucket:?} is not what etcd writes")]
    Record { bucket: &'static str },
    #[error("it was made by etcd {found}, which is newer than {ETCD_CLUSTER_VERSION}")]
    Version { found: String },
}

/// Reads a database of `bytes` bytes.
pub(crate) fn read_content<F: Read + Seek>(file: F, bytes: u64) -> Result<Content, DatabaseError> {
    let mut reader = BoltReader::open(file, bytes)?;
    let mut compacted = FIRST_REVISION;
    let mut version = Vec::new();
    each(&mut reader, "meta", |name, value| {
        match name {
            FINISHED_COMPACTION | SCHEDULED_COMPACTION => compacted = compacted.max(parse_revision(value)?.0),
            STORAGE_VERSION => version = value.to_vec(),
            _ => {}
        }
        Some(())
    })?;
    check_version(&version)?;
    let mut leases = Vec::new();
    each(&mut reader, "lease", |_, value| {
        let lease = Lease::decode(value).ok()?;
        leases.push((lease.id, lease.ttl));
        Some(())
    })?;
    let mut newest = Newest { revision: compacted, keys: HashMap::new() };
    each(&mut reader, "key", |key, value| newest.take(key, value))?;
    let policy = read_rules(&mut reader)?;
    Ok(Content { revision: newest.revision, leases, keys: newest.keys.into_values().collect(), policy })
}

/// Users, roles and whether they count. The key of simple tokens is not in a snapshot: who has one makes no tokens with it.
fn read_rules<F: Read + Seek>(reader: &mut BoltReader<F>) -> Result<BTreeMap<Bytes, Bytes>, DatabaseError> {
    let (mut state, mut users, mut roles) = (AccessState::default(), Vec::new(), Vec::new());
    each(reader, "auth", |name, value| {
        match name {
            AUTH_ENABLED => state.enabled = value == [1],
            AUTH_REVISION => state.revision = u64::from_be_bytes(value.try_into().ok()?),
            _ => {}
        }
        Some(())
    })?;
    each(reader, "authUsers", |_, value| User::decode(value).ok().map(|user| users.push(user)))?;
    each(reader, "authRoles", |_, value| Role::decode(value).ok().map(|role| roles.push(role)))?;
    if users.is_empty() && roles.is_empty() {
        return Ok(BTreeMap::new());
    }
    Ok(Rules::records(&state, &users, &roles))
}

/// Calls `take` for every record of a bucket; `None` from it: the record makes no sense.
fn each<F: Read + Seek>(
    reader: &mut BoltReader<F>,
    bucket: &'static str,
    mut take: impl FnMut(&[u8], &[u8]) -> Option<()>,
) -> Result<(), DatabaseError> {
    let mut understood = true;
    reader.each(bucket, &mut |key, value| {
        understood &= take(key, value).is_some();
        Ok(())
    })?;
    if understood { Ok(()) } else { Err(DatabaseError::Record { bucket }) }
}

/// etcd before 3.6 wrote none.
fn check_version(found: &[u8]) -> Result<(), DatabaseError> {
    let minor = |text: &str| text.strip_prefix("3.")?.split('.').next()?.parse::<u32>().ok();
    let text = String::from_utf8_lossy(found);
    let known = minor(ETCD_CLUSTER_VERSION).unwrap_or(0);
    if found.is_empty() || minor(&text).is_some_and(|minor| minor <= known) {
        return Ok(());
    }
    Err(DatabaseError::Version { found: text.into_owned() })
}

/// The newest version of every key, as the records of all revisions go by in order.
struct Newest {
    revision: i64,
    keys: HashMap<Bytes, Arc<KeyValue>>,
}

impl Newest {
    fn take(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let (revision, is_deleted) = parse_revision(key)?;
        self.revision = self.revision.max(revision);
        let kv = mvccpb::KeyValue::decode(value).ok()?;
        if is_deleted {
            self.keys.remove(&kv.key);
            return Some(());
        }
        if kv.key.is_empty() {
            // `etcdutl snapshot restore --bump-revision` marks a revision with an empty record.
            return value.is_empty().then_some(());
        }
        if kv.mod_revision != revision {
            return None;
        }
        let taken = parse_kv(&kv);
        self.keys.insert(taken.key.clone(), taken);
        Some(())
    }
}

/// A revision as it is written in keys and in the bucket `meta`: the main revision, and whether it is a deletion.
fn parse_revision(bytes: &[u8]) -> Option<(i64, bool)> {
    let is_deleted = match bytes.get(REVISION_BYTES..)? {
        [] => false,
        b"t" => true,
        _ => return None,
    };
    let main = bytes.first_chunk().map(|main| i64::from_be_bytes(*main)).filter(|main| *main >= 0)?;
    (bytes[8] == b'_').then_some((main, is_deleted))
}

fn render_revision(main: i64, sub: i64) -> Vec<u8> {
    [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()[..]].concat()
}

/// Writes `content` as a database; returns its size.
pub(crate) fn write_content(content: &Content, out: &mut dyn io::Write) -> io::Result<u64> {
    let rules = Rules::of_records(0, &content.policy);
    let buckets = BUCKETS.map(|name| {
        let entries = match name {
            "key" => key_entries(content),
            "lease" => lease_entries(content),
            "meta" => meta_entries(content),
            "auth" => auth_entries(&rules),
            "authUsers" => records(&rules.users),
            "authRoles" => records(&rules.roles),
            _ => Vec::new(),
        };
        Bucket { name, entries }
    });
    write_database(&buckets, out)
}

type Entries<'a> = Vec<(Vec<u8>, Box<dyn Stored + 'a>)>;

fn plain<'a>(key: &[u8], value: Vec<u8>) -> (Vec<u8>, Box<dyn Stored + 'a>) {
    (key.to_vec(), Box::new(value))
}

fn key_entries(content: &Content) -> Entries<'_> {
    let mut keys: Vec<&Arc<KeyValue>> = content.keys.iter().collect();
    keys.sort_by(|a, b| (a.mod_revision, &a.key).cmp(&(b.mod_revision, &b.key)));
    let (mut revision, mut sub) = (0, 0);
    let entry = |kv: &'_ Arc<KeyValue>| {
        sub = if kv.mod_revision == revision { sub + 1 } else { 0 };
        revision = kv.mod_revision;
        (render_revision(revision, sub), Box::new(Record(wire_kv(kv))) as Box<dyn Stored>)
    };
    let mut entries: Entries<'_> = keys.into_iter().map(entry).collect();
    if content.revision > revision.max(FIRST_REVISION) {
        // The newest revision deleted something. etcd has the record of it, from which its tools tell the store's revision; here its
        // key is not known any more, and the empty one belongs to nobody.
        entries.push(plain(&[&render_revision(content.revision, 0)[..], b"t"].concat(), Vec::new()));
    }
    entries
}

fn lease_entries(content: &Content) -> Entries<'_> {
    let mut leases = content.leases.clone();
    leases.sort_unstable_by_key(|(id, _)| id.cast_unsigned());
    let encode = |id, ttl| Lease { id, ttl, remaining_ttl: 0 }.encode_to_vec();
    leases.into_iter().map(|(id, ttl)| plain(&id.to_be_bytes(), encode(id, ttl))).collect()
}

fn meta_entries(content: &Content) -> Entries<'_> {
    let compacted = render_revision(content.revision, 0);
    vec![
        plain(b"consistent_index", BEGIN.to_be_bytes().to_vec()),
        plain(FINISHED_COMPACTION, compacted.clone()),
        plain(SCHEDULED_COMPACTION, compacted),
        plain(STORAGE_VERSION, ETCD_CLUSTER_VERSION.as_bytes().to_vec()),
        plain(b"term", BEGIN.to_be_bytes().to_vec()),
    ]
}

/// `authEnabled` (one byte) and `authRevision` (u64, big endian).
fn auth_entries<'a>(rules: &Rules) -> Entries<'a> {
    if rules.users.is_empty() && rules.roles.is_empty() {
        return Vec::new();
    }
    let enabled = vec![u8::from(rules.enabled)];
    vec![plain(AUTH_ENABLED, enabled), plain(AUTH_REVISION, rules.revision.to_be_bytes().to_vec())]
}

/// Name -> message.
fn records<'a, M: Message>(messages: &BTreeMap<String, M>) -> Entries<'a> {
    messages.iter().map(|(name, message)| plain(name.as_bytes(), message.encode_to_vec())).collect()
}

/// A key's record; shares key and value with the store.
struct Record(mvccpb::KeyValue);

impl Stored for Record {
    fn size(&self) -> usize {
        self.0.encoded_len()
    }

    fn append_to(&self, page: &mut Vec<u8>) {
        // Memory grows as needed: encoding has no other way to fail.
        self.0.encode(page).ok();
    }
}
