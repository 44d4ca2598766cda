//! A member's id and its cluster's, made from the flags as etcd makes them, so that both come out the same
//! (server/etcdserver/api/membership: computeMemberID, genID).
//!
//! ```text
//! member id  = first 8 bytes, big endian, of SHA-1(peer URLs sorted and joined, cluster token)
//! cluster id = first 8 bytes, big endian, of SHA-1(member ids ascending, 8 bytes big endian each)
//! ```

use sha1::{Digest as _, Sha1};

/// The id of a first member.
pub fn member_id(peer_urls: &[String], token: &str) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    urls.iter().for_each(|url| hash.update(url));
    hash.update(token);
    first_bytes(hash)
}

/// The id of a cluster of these first members.
pub fn cluster_id(members: impl IntoIterator<Item = u64>) -> u64 {
    let mut ids: Vec<u64> = members.into_iter().collect();
    ids.sort_unstable();
    let mut hash = Sha1::new();
    ids.iter().for_each(|id| hash.update(id.to_be_bytes()));
    first_bytes(hash)
}

fn first_bytes(hash: Sha1) -> u64 {
    let digest = hash.finalize();
    digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_etcds_for_its_default_flags() {
        let member = member_id(&["http://localhost:2380".to_owned()], "etcd-cluster");
        assert_eq!(format!("{member:x}"), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", cluster_id([member])), "cdf818194e3a8c32");
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter() {
        let urls = ["http://a:1".to_owned(), "http://b:2".to_owned()];
        let turned = [urls[1].clone(), urls[0].clone()];
        assert_eq!(member_id(&urls, "t"), member_id(&turned, "t"));
        assert_ne!(member_id(&urls, "t"), member_id(&urls, "u"));
        assert_eq!(cluster_id([1, 2, 3]), cluster_id([3, 1, 2]));
    }
}
