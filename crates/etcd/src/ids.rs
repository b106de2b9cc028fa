//! Ids of clusters and members as etcd derives them, so that the same flags give the same ids. Pure.
//!
//! Source: etcd's `membership` package: SHA-1, first eight bytes, big-endian.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The id of a member that a new cluster begins with: its peer URLs in order, then the cluster's token.
pub fn derive_member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls = peer_urls.to_vec();
    urls.sort();
    first_bytes(format!("{}{token}", urls.concat()).as_bytes())
}

/// The id of a member that is added later: its peer URLs, then the time in seconds.
pub fn derive_added_id(peer_urls: &[String], unix_seconds: i64) -> u64 {
    derive_member_id(peer_urls, &unix_seconds.to_string())
}

/// The id of a new cluster: the ids of its first members.
pub fn derive_cluster_id(member_ids: &[u64]) -> u64 {
    let mut ids = member_ids.to_vec();
    ids.sort_unstable();
    first_bytes(&ids.iter().flat_map(|id| id.to_be_bytes()).collect::<Vec<u8>>())
}

fn first_bytes(text: &[u8]) -> u64 {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text);
    hash.as_ref().iter().take(8).fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids that an etcd 3.7.3 of these flags shows.
    #[test]
    fn ids_are_etcds() {
        let member = derive_member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", derive_cluster_id(&[member])), "cdf818194e3a8c32");
    }

    #[test]
    fn order_does_not_matter() {
        let urls = |list: [&str; 2]| list.map(str::to_owned);
        assert_eq!(derive_member_id(&urls(["a", "b"]), "t"), derive_member_id(&urls(["b", "a"]), "t"));
        assert_eq!(derive_cluster_id(&[1, 2]), derive_cluster_id(&[2, 1]));
        assert_ne!(derive_member_id(&urls(["a", "b"]), "t"), derive_member_id(&urls(["a", "b"]), "u"));
    }
}
