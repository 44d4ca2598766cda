//! Maintenance.Snapshot: the framing etcd's clients rely on, an image of one moment, and what a stream may hold back.

use crate::support::{Client, TestMember, range, refusal, run, soon};
use coffer_engine::check::check_reached;
use coffer_engine::disk::{DiskIo, open_disk};
use coffer_engine::mvcc::hash::HashScan;
use coffer_engine::mvcc::view::View;
use coffer_engine::snapshot::Image;
use coffer_server::proto::etcdserverpb as pb;
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::Duration;
use tonic::{Code, Status, Streaming};

/// What a whole stream brought.
struct Saved {
    image: Vec<u8>,
    messages: Vec<pb::SnapshotResponse>,
}

async fn begin(client: &mut Client) -> Result<Streaming<pb::SnapshotResponse>, Status> {
    soon(client.maintenance.snapshot(pb::SnapshotRequest {})).await.map(tonic::Response::into_inner)
}

/// Reads on to the end.
async fn rest(stream: &mut Streaming<pb::SnapshotResponse>) -> Result<Saved, Status> {
    let mut saved = Saved { image: Vec::new(), messages: Vec::new() };
    while let Some(message) = soon(stream.message()).await? {
        saved.image.extend_from_slice(&message.blob);
        saved.messages.push(message);
    }
    Ok(saved)
}

async fn fill(client: &mut Client, keys: usize, value_bytes: usize) {
    for key in 0..keys {
        client.put(&format!("k{key:04}"), &"v".repeat(value_bytes)).await;
    }
}

async fn hash_kv(client: &mut Client, revision: i64) -> u32 {
    client.maintenance.hash_kv(pb::HashKvRequest { revision }).await.unwrap().into_inner().hash
}

/// Revision and HashKV of an image, all of it checked.
fn look(path: &Path) -> (i64, u32) {
    let mut disk = open_disk(DiskIo::Sync).unwrap();
    let image = Image::open(disk.as_mut(), path).unwrap();
    image.check_pages(&mut |_, _| {}).unwrap();
    assert_eq!(check_reached(&image, image.root(), image.pages()).unwrap(), []);
    let view = View::of(&image, image.root());
    let hash = HashScan::begin(&view, 0).unwrap().step(&view, usize::MAX).unwrap().unwrap();
    (hash.hash_revision, hash.hash)
}

#[test]
fn a_stream_is_framed_as_etcds_and_holds_all_that_was_acknowledged() {
    let mut member = TestMember::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let mut client = member.client().await;
        fill(&mut client, 50, 10_000).await;
        let revision = client.put("last", "of all").await;
        let expected = hash_kv(&mut client, revision).await;
        let mut stream = begin(&mut client).await.unwrap();
        let Saved { image, messages } = rest(&mut stream).await.unwrap();

        let (image, sum) = image.split_at(image.len() - 32);
        assert_eq!(image.len() % 512, 0);
        assert_eq!(sum, &Sha256::digest(image)[..]);
        let (last, chunks) = messages.split_last().unwrap();
        assert_eq!((&last.blob[..], last.remaining_bytes), (sum, 0));
        let mut left = image.len() as u64;
        for (number, chunk) in chunks.iter().enumerate() {
            left -= chunk.blob.len() as u64;
            assert_eq!(chunk.remaining_bytes, left);
            let whole = chunk.blob.len() == 32 * 1024;
            assert!(whole || (number == chunks.len() - 1 && chunk.blob.len() < 32 * 1024), "chunk {number}");
        }
        assert_eq!(left, 0);
        assert!(messages.iter().all(|message| message.version == "3.7.0" && message.header.is_none()));

        let path = directory.path().join("image");
        std::fs::write(&path, image).unwrap();
        assert_eq!(look(&path), (revision, expected));
    });
    member.stop();
}

#[test]
fn serving_goes_on_and_the_image_stays_at_its_moment() {
    let mut member = TestMember::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let mut client = member.client().await;
        fill(&mut client, 40, 200_000).await;
        let revision = client.put("last", "of the image").await;
        let expected = hash_kv(&mut client, revision).await;
        let mut stream = begin(&mut client).await.unwrap();
        let first = soon(stream.message()).await.unwrap().unwrap();
        let total = first.remaining_bytes + first.blob.len() as u64;
        assert!(total > 8_000_000, "more than a client's windows hold: {total}");
        // the stream stands still; everything it holds is overwritten, and read
        fill(&mut client, 40, 100_000).await;
        client.compact(revision + 5).await.unwrap();
        fill(&mut client, 40, 10).await;
        assert_eq!(client.range(range("k", "l")).await.count, 40);
        let Saved { image, .. } = rest(&mut stream).await.unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, [&first.blob[..], &image[..image.len() - 32]].concat()).unwrap();
        assert_eq!(look(&path), (revision, expected));
    });
    member.stop();
}

#[test]
fn only_so_many_streams_hold_pages_back_and_a_client_that_goes_away_holds_none() {
    let mut member = TestMember::start(&[]);
    run(async {
        let mut client = member.client().await;
        fill(&mut client, 40, 200_000).await;
        // a connection each: on one, those that stand still would be in the way of the others
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(begin(&mut member.client().await).await.unwrap());
        }
        let told = refusal(begin(&mut client).await);
        assert_eq!(told, (Code::Unknown, "etcdserver: too many requests".to_owned()));
        streams.pop();
        // the server learns of it in its own time
        let mut again = soon(async {
            loop {
                match begin(&mut client).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        })
        .await;
        rest(&mut again).await.unwrap();
        // a whole one leaves its place too
        begin(&mut client).await.unwrap();
    });
    member.stop();
}

#[test]
fn a_stream_that_takes_too_long_is_ended_and_says_so() {
    let mut member = TestMember::start(&["--snapshot-timeout=3s"]);
    run(async {
        let mut client = member.client().await;
        fill(&mut client, 40, 200_000).await;
        let mut stream = begin(&mut client).await.unwrap();
        soon(stream.message()).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        let (code, text) = refusal(rest(&mut stream).await.map(|_| ()));
        assert_eq!(code, Code::Aborted);
        assert!(text.contains("--snapshot-timeout"), "{text}");
        client.put("k", "serving goes on").await;
    });
    member.stop();
}

#[test]
fn a_stream_that_was_ended_leaves_its_place_though_its_client_takes_nothing() {
    let mut member = TestMember::start(&["--snapshot-timeout=2s"]);
    run(async {
        let mut client = member.client().await;
        fill(&mut client, 40, 200_000).await;
        let mut stalled = Vec::new();
        for _ in 0..4 {
            stalled.push(begin(&mut member.client().await).await.unwrap());
        }
        assert!(begin(&mut client).await.is_err());
        let mut again = soon(async {
            loop {
                match begin(&mut client).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        })
        .await;
        rest(&mut again).await.unwrap();
        drop(stalled);
    });
    member.stop();
}

#[test]
fn a_stream_that_lets_the_store_grow_too_much_is_ended_and_says_so() {
    let mut member = TestMember::start(&["--snapshot-growth-bytes-max=100000"]);
    run(async {
        let mut client = member.client().await;
        fill(&mut client, 40, 200_000).await;
        let mut stream = begin(&mut client).await.unwrap();
        soon(stream.message()).await.unwrap().unwrap();
        for round in 0..4 {
            fill(&mut client, 40, 100_000 + round).await;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (code, text) = refusal(rest(&mut stream).await.map(|_| ()));
        assert_eq!(code, Code::Aborted);
        assert!(text.contains("--snapshot-growth-bytes-max"), "{text}");
    });
    member.stop();
}

#[test]
fn an_empty_store_has_an_image_too() {
    let mut member = TestMember::start(&[]);
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let mut client = member.client().await;
        let mut stream = begin(&mut client).await.unwrap();
        let Saved { image, .. } = rest(&mut stream).await.unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, &image).unwrap();
        assert_eq!(look(&path).0, 1);
    });
    member.stop();
}
