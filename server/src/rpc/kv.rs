//! KV: Range, RangeStream, Put, DeleteRange, Txn, Compact.

use super::header::header;
use super::range_stream::RangeStream;
use super::status::Error;
use super::{check, quota, wire};
use crate::metrics::Count;
use crate::propose::{self, Compact, propose};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::read;
use crate::serving::Serving;
use coffer_engine::command::{TxnOp, TxnReply, TxnRequest};
use prost::Message as _;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// How often a physical compaction is looked after while somebody waits for it.
const COMPACTION_POLL: Duration = Duration::from_millis(5);

/// The service on one serving thread.
pub(crate) struct KvService {
    pub(crate) serving: Arc<Serving>,
}

impl KvService {
    fn count(&self, count: Count, n: usize) {
        if n > 0 {
            self.serving.shared.metrics.add(count, n as u64);
        }
    }

    /// Counts what a txn did: the operations of the branches it took.
    fn count_txn(&self, request: &Counted, reply: &TxnReply) {
        let branch = if reply.succeeded { &request.success } else { &request.failure };
        self.count(Count::Puts, branch.puts);
        self.count(Count::PutBytes, branch.put_bytes);
        self.count(Count::Deletes, branch.deletes);
        self.count(Count::Ranges, branch.ranges);
        if reply.responses.len() > 1 {
            self.count(Count::Txns, 1);
        }
    }

    async fn read_txn(&self, request: TxnRequest, serializable: bool) -> Result<(i64, TxnReply), Status> {
        if !serializable {
            read::linearizable(&self.serving).await?;
        }
        let shared = &self.serving.shared;
        let short = read::is_short_txn(shared.reader(), &request);
        let told = read::look(&self.serving, short, move |reader| reader.read_txn(&request)).await?;
        told.map_err(|error| shared.read_error(error))
    }
}

/// What the two branches of a txn hold, counted before it is handed on. Txns inside count with their first branch.
struct Counted {
    success: Branch,
    failure: Branch,
}

#[derive(Default)]
struct Branch {
    puts: usize,
    put_bytes: usize,
    deletes: usize,
    ranges: usize,
}

impl Branch {
    fn of(ops: &[TxnOp]) -> Branch {
        let mut branch = Branch::default();
        for op in ops {
            match op {
                TxnOp::Put(put) => {
                    branch.puts += 1;
                    branch.put_bytes += put.key.len() + put.value.len();
                }
                TxnOp::DeleteRange(_) => branch.deletes += 1,
                TxnOp::Range(_) => branch.ranges += 1,
                TxnOp::Txn(_) => {}
            }
        }
        branch
    }
}

/// Whether every operation is a range that the local state will do for.
fn is_serializable(request: &pb::TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(&op.request, Some(Op::RequestRange(range)) if range.serializable))
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<pb::RangeRequest>) -> Result<Response<pb::RangeResponse>, Status> {
        let request = request.into_inner();
        check::range(&request)?;
        if !request.serializable {
            read::linearizable(&self.serving).await?;
        }
        let shared = &self.serving.shared;
        let request = wire::range(request);
        let short = read::is_short(shared.reader(), &request);
        let told = read::look(&self.serving, short, move |reader| reader.range(&request)).await?;
        let reply = told.map_err(|error| shared.read_error(error))?;
        self.count(Count::Ranges, 1);
        Ok(Response::new(wire::range_reply(&reply, header(shared, reply.current_revision))))
    }

    type RangeStreamStream = RangeStream;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<RangeStream>, Status> {
        let request = request.into_inner();
        check::range_stream(&request)?;
        if !request.serializable {
            read::linearizable(&self.serving).await?;
        }
        self.count(Count::Ranges, 1);
        Ok(Response::new(RangeStream::new(Arc::clone(&self.serving.shared), wire::range(request))))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        propose::ensure_room(&self.serving, quota::put(&request)).await?;
        check::put(&request)?;
        let bytes = request.encoded_len();
        let put_bytes = request.key.len() + request.value.len();
        let (revision, reply) = propose(&self.serving, wire::put(request), bytes).await?;
        self.count(Count::Puts, 1);
        self.count(Count::PutBytes, put_bytes);
        Ok(Response::new(wire::put_reply(&reply, header(&self.serving.shared, revision))))
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let request = request.into_inner();
        check::delete_range(&request)?;
        let bytes = request.encoded_len();
        let (revision, reply) = propose(&self.serving, wire::delete_range(request), bytes).await?;
        self.count(Count::Deletes, 1);
        Ok(Response::new(wire::delete_range_reply(&reply, header(&self.serving.shared, revision))))
    }

    async fn txn(&self, request: Request<pb::TxnRequest>) -> Result<Response<pb::TxnResponse>, Status> {
        let request = request.into_inner();
        propose::ensure_room(&self.serving, quota::txn(&request)).await?;
        check::txn(&request, self.serving.shared.config.max_txn_ops)?;
        let bytes = request.encoded_len();
        let serializable = is_serializable(&request);
        let request = wire::txn(request)?;
        let counted =
            Counted { success: Branch::of(&request.success), failure: Branch::of(&request.failure) };
        let (revision, reply) = if request.is_read_only() {
            self.read_txn(request, serializable).await?
        } else {
            propose(&self.serving, request, bytes).await?
        };
        self.count_txn(&counted, &reply);
        Ok(Response::new(wire::txn_reply(&reply, header(&self.serving.shared, revision))))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let request = request.into_inner();
        let (revision, ()) = propose(&self.serving, Compact(request.revision), request.encoded_len()).await?;
        if request.physical {
            let reader = self.serving.shared.reader();
            while reader.position().compaction_done < request.revision {
                if self.serving.shared.is_stopping() {
                    return Err(Error::Stopped.into());
                }
                tokio::time::sleep(COMPACTION_POLL).await;
            }
        }
        Ok(Response::new(pb::CompactionResponse { header: header(&self.serving.shared, revision) }))
    }
}
