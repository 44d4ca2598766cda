//! The work beside: what an operator does to a member that serves.

use super::keys::{FIRST, key};
use super::{Failed, LoadOptions, Meanwhile};
use bytes::Bytes;
use coffer_server::proto::etcdserverpb as pb;
use coffer_server::proto::etcdserverpb::kv_client::KvClient;
use coffer_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// Deletes nine of ten keys and compacts.
pub(super) async fn delete_most(channel: &Channel, options: &LoadOptions) -> Result<(), Failed> {
    let mut kv = KvClient::new(channel.clone());
    let end = options.keys / 10 * 9;
    let mut from = 0;
    while from < end {
        let to = (from + 10_000).min(end);
        let request = pb::DeleteRangeRequest {
            key: key(from, options.key_bytes),
            range_end: key(to, options.key_bytes),
            ..Default::default()
        };
        kv.delete_range(request).await?;
        from = to;
    }
    let revision = revision(channel).await?;
    kv.compact(pb::CompactionRequest { revision, physical: true }).await?;
    Ok(())
}

/// The store's revision, as everybody sees it.
pub(super) async fn revision(channel: &Channel) -> Result<i64, Failed> {
    let request = pb::RangeRequest { key: Bytes::from_static(FIRST), ..Default::default() };
    let response = KvClient::new(channel.clone()).range(request).await?.into_inner();
    Ok(response.header.map_or(0, |header| header.revision))
}

/// Does it, and says what it took.
pub(super) async fn start(channel: Channel, options: LoadOptions) -> Result<Option<String>, Failed> {
    if options.meanwhile == Meanwhile::Nothing {
        return Ok(None);
    }
    tokio::time::sleep(Duration::from_secs_f64(options.seconds / 6.0)).await;
    let begun = Instant::now();
    let mut kv = KvClient::new(channel.clone());
    let mut maintenance = MaintenanceClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let what = match options.meanwhile {
        Meanwhile::Nothing => return Ok(None),
        Meanwhile::Compaction => {
            let revision = revision(&channel).await?;
            kv.compact(pb::CompactionRequest { revision, physical: true }).await?;
            format!("compaction to revision {revision}")
        }
        Meanwhile::Checkpoint => {
            maintenance.snapshot(pb::SnapshotRequest {}).await?.into_inner().message().await?;
            "checkpoint".to_owned()
        }
        Meanwhile::Snapshot => {
            let mut stream = maintenance.snapshot(pb::SnapshotRequest {}).await?.into_inner();
            let mut bytes = 0;
            while let Some(part) = stream.message().await? {
                bytes += part.blob.len();
            }
            format!("snapshot of {} MB", bytes / 1_000_000)
        }
        Meanwhile::Defragment | Meanwhile::Shrink => {
            maintenance.defragment(pb::DefragmentRequest {}).await?;
            let status = maintenance.status(pb::StatusRequest {}).await?.into_inner();
            format!(
                "defragment: {} MB, {} MB in use",
                status.db_size / 1_000_000,
                status.db_size_in_use / 1_000_000
            )
        }
    };
    Ok(Some(format!("{what}, {:.1} s", begun.elapsed().as_secs_f64())))
}
