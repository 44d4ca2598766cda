//! The real binary whose files may not grow any more. scripts/full_disk.sh does the same with a disk that is full.

use crate::binary::{Process, SIGKILL};
use crate::support::{Client, put, refusal, run};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use std::time::Duration;
use tonic::Code;

/// Smaller than the largest segment of the log.
const LIMIT_BYTES: u64 = 12 << 20;

fn key(number: usize) -> String {
    format!("key{number:03}")
}

/// No file of the process may grow beyond so many bytes.
fn limit(process: &Process, bytes: Option<u64>) {
    let limit = Rlimit { current: bytes, maximum: getrlimit(Resource::Fsize).maximum };
    prlimit(Some(process.pid()), Resource::Fsize, limit).unwrap();
}

#[test]
fn a_limit_on_the_size_of_files_is_a_full_disk_that_heals() {
    for io in ["--wal-io=auto", "--wal-io=sync"] {
        let temporary = tempfile::tempdir().unwrap();
        let process = Process::start(temporary.path(), &[io]);
        limit(&process, Some(LIMIT_BYTES));
        let value = "v".repeat(100_000);
        let there = run(async {
            let mut client = Client::connect(&process.endpoint).await;
            let mut there = 0;
            let refused = loop {
                match client.kv.put(put(&key(there), &value)).await {
                    Ok(_) => there += 1,
                    refused => break refusal(refused),
                }
                assert!(there < 1_000, "{io}: it never ends");
            };
            let told = (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded".to_owned());
            assert_eq!(refused, told, "{io}");
            assert_eq!(client.get(&key(there - 1)).await.as_deref(), Some(&value[..]), "{io}");
            assert_eq!(client.get(&key(there)).await, None, "{io}: it was refused");
            assert_eq!(client.delete(&key(0)).await.deleted, 1, "{io}: the reserve is there for that");
            limit(&process, None);
            while client.kv.put(put("healed", "by itself")).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            there
        });
        assert_eq!(process.end(SIGKILL), Some(SIGKILL));
        let process = Process::start(temporary.path(), &[io]);
        run(async {
            let mut client = Client::connect(&process.endpoint).await;
            assert_eq!(client.get("healed").await.as_deref(), Some("by itself"));
            let all = client.range(crate::support::range("key", "l")).await;
            assert_eq!(all.kvs.len(), there - 1, "{io}");
        });
    }
}
