//! Addresses of this node's Pods: one file an address under `<data dir>/addresses`, named by the address, holding who has
//! it. A file lock serializes the plugin's processes.
//!
//! Invariant: an address is given to one attachment at a time; a file appears whole (written aside, then renamed). After
//! a release the address is the last to be given again, so that stale connections of the old Pod find nobody.
//! Not here: network interfaces.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use netplan::Cidr;

use super::protocol::{CniError, PortMapping};

/// Who holds an address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub container_id: String,
    pub interface: String,
    /// The host's end of the Pod's link; a record whose link is gone is a leftover.
    pub veth: String,
    #[serde(default)]
    pub ports: Vec<PortMapping>,
}

/// The address pool, locked for as long as the value lives.
#[derive(Debug)]
pub struct Pool {
    dir: PathBuf,
    /// Closing it releases the lock.
    _lock: File,
}

impl Pool {
    /// Opens (making it if need be) and locks the pool; waits while another process holds it.
    pub fn lock(data_dir: &Path) -> Result<Self, CniError> {
        let dir = data_dir.join("addresses");
        let lock = fs::create_dir_all(&dir)
            .and_then(|()| File::options().create(true).truncate(false).write(true).open(data_dir.join("lock")))
            .and_then(|file| {
                rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
                    .map(|()| file)
                    .map_err(io::Error::from)
            })
            .map_err(|error| CniError::io("lock the address pool", &error))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The address of the record's attachment, newly allocated unless it has one already; the record is stored.
    pub fn allocate(&self, cidr: Cidr, record: &Record) -> Result<Ipv4Addr, CniError> {
        let taken = self.records()?;
        let held = taken
            .iter()
            .find(|(_, other)| other.container_id == record.container_id && other.interface == record.interface);
        let last = self.last();
        let free = |address: &Ipv4Addr| !taken.iter().any(|(other, _)| other == address);
        let address = match held {
            Some((address, _)) => *address,
            None => cidr
                .hosts()
                .filter(|address| last.is_none_or(|last| *address > last))
                .find(free)
                .or_else(|| cidr.hosts().find(free))
                .ok_or_else(|| CniError::new(100, "no free address", &format!("all of {cidr} are taken")))?,
        };
        self.write(&address.to_string(), &serde_json::to_vec(record).unwrap_or_default())
            .and_then(|()| self.write("last", address.to_string().as_bytes()))
            .map_err(|error| CniError::io("record the address", &error))?;
        Ok(address)
    }

    /// Frees all addresses whose record matches; tells how many records had host ports.
    pub fn release(&self, matches: impl Fn(&Record) -> bool) -> Result<usize, CniError> {
        let mut with_ports = 0;
        for (address, record) in self.records()? {
            if matches(&record) {
                with_ports += usize::from(!record.ports.is_empty());
                fs::remove_file(self.dir.join(address.to_string()))
                    .map_err(|error| CniError::io("release the address", &error))?;
            }
        }
        Ok(with_ports)
    }

    /// All addresses in use. A file that cannot be read as a record (a disk's doing) counts as held by nobody: its veth
    /// is empty, so reclaiming removes it.
    pub fn records(&self) -> Result<Vec<(Ipv4Addr, Record)>, CniError> {
        let list = || -> io::Result<Vec<(Ipv4Addr, Record)>> {
            let mut records = Vec::new();
            for entry in fs::read_dir(&self.dir)? {
                let entry = entry?;
                if let Some(address) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                    let nobody = Record {
                        container_id: String::new(),
                        interface: String::new(),
                        veth: String::new(),
                        ports: Vec::new(),
                    };
                    records.push((address, serde_json::from_slice(&fs::read(entry.path())?).unwrap_or(nobody)));
                }
            }
            records.sort_by_key(|(address, _)| *address);
            Ok(records)
        };
        list().map_err(|error| CniError::io("read the address pool", &error))
    }

    fn last(&self) -> Option<Ipv4Addr> {
        fs::read_to_string(self.dir.join("last")).ok()?.trim().parse().ok()
    }

    /// Whole or not at all. Not synced to disk: after a power cut no Pod of before runs, and reclaiming clears the rest.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let aside = self.dir.join(format!("{name}.new"));
        File::create(&aside)?.write_all(bytes)?;
        fs::rename(&aside, self.dir.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record { container_id: id.to_owned(), interface: "eth0".to_owned(), veth: format!("hfv{id}"), ports: vec![] }
    }

    fn pool(name: &str) -> (Pool, PathBuf) {
        let dir = std::env::temp_dir().join(format!("holdfast-ipam-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&dir));
        (Pool::lock(&dir).unwrap(), dir)
    }

    #[test]
    fn addresses_are_stable_distinct_and_reused_last() {
        let (pool, dir) = pool("reuse");
        let cidr: Cidr = "10.9.0.0/29".parse().unwrap();
        let give = |id: &str| pool.allocate(cidr, &record(id)).map(|address| address.to_string());
        assert_eq!(give("a").unwrap(), "10.9.0.2");
        assert_eq!(give("b").unwrap(), "10.9.0.3");
        assert_eq!(give("a").unwrap(), "10.9.0.2", "the same attachment keeps its address");
        assert_eq!(pool.release(|record| record.container_id == "a").unwrap(), 0);
        assert_eq!(give("c").unwrap(), "10.9.0.4", "a freed address waits");
        for id in ["d", "e"] {
            give(id).unwrap();
        }
        assert_eq!(give("f").unwrap(), "10.9.0.2");
        assert_eq!(give("g").unwrap_err().code, 100);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_torn_record_is_reclaimed() {
        let (pool, dir) = pool("torn");
        fs::write(dir.join("addresses/10.9.0.2"), "{\"conta").unwrap();
        assert_eq!(pool.records().unwrap()[0].1.veth, "");
        pool.release(|record| record.veth.is_empty()).unwrap();
        assert!(pool.records().unwrap().is_empty());
        fs::remove_dir_all(dir).unwrap();
    }
}
