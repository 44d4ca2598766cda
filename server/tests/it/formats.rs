//! What earlier versions wrote opens, or is refused with both format numbers.
//!
//! `formats/log-1.wal` is the used part of the only segment that coffer's first version left after a `kill -9`: log format 1,
//! no page file. It was run with the flags below and given: key1 to key5, key1 again, key2 deleted, a lease of 600 s with
//! the key `leased`, a compaction to revision 6, and `big` with 3,000 bytes.

use crate::support::{TestMember, range, run, text};
use coffer_server::proto::etcdserverpb as pb;
use std::path::Path;

const FLAGS: [&str; 3] = ["--name=old", "--wal-segment-bytes-min=65536", "--max-request-bytes=16384"];
/// Bytes of the segment, and what unused space in it is filled with.
const SEGMENT_BYTES: usize = 557_056;
const UNUSED: &[u8] = b"coffer: unused. ";

fn directory_of_the_first_version(directory: &Path) {
    let used = include_bytes!("../formats/log-1.wal");
    let mut segment = used.to_vec();
    while segment.len() < SEGMENT_BYTES {
        segment.extend_from_slice(UNUSED);
    }
    assert_eq!(segment.len(), SEGMENT_BYTES);
    std::fs::create_dir_all(directory.join("wal")).unwrap();
    std::fs::write(directory.join("wal/0000000000000001.wal"), segment).unwrap();
}

#[test]
fn a_directory_of_the_first_version_opens_and_gets_a_page_file() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("data");
    directory_of_the_first_version(&directory);
    // twice: the second start finds the page file that the first one made
    for start in 1..=2 {
        let mut member = TestMember::start_on(&directory, &FLAGS).expect("it opens");
        run(async {
            let mut client = member.client().await;
            let all = client.range(range("\0", "\0")).await;
            assert_eq!(all.header.as_ref().map(|header| header.revision), Some(10), "start {start}");
            let keys: Vec<String> = all.kvs.iter().map(|kv| text(&kv.key)).collect();
            assert_eq!(keys, ["big", "key1", "key3", "key4", "key5", "leased"]);
            assert_eq!(all.kvs[0].value.len(), 3_000);
            assert_eq!((text(&all.kvs[1].value), all.kvs[1].version), ("again".into(), 2));
            assert_ne!(all.kvs[5].lease, 0);
            let at_7 = pb::RangeRequest { revision: 7, ..range("\0", "\0") };
            assert_eq!(client.range(at_7).await.count, 5);
            let compacted = pb::RangeRequest { revision: 5, ..range("\0", "\0") };
            assert!(client.kv.range(compacted).await.is_err());
        });
        member.stop();
        assert!(directory.join("pages").exists());
    }
}
