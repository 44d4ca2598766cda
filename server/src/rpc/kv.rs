//! KV: Range, RangeStream, Put, DeleteRange, Txn, Compact.

use super::header::header;
use super::status::Error;
use super::{check, quota, range_stream, wire};
use crate::metrics::Count;
use crate::propose::{self, Compact, propose};
use crate::proto::etcdserverpb as pb;
use crate::proto::etcdserverpb::kv_server::Kv;
use crate::proto::etcdserverpb::request_op::Request as Op;
use crate::read;
use crate::serving::{Serving, Ticket};
use coffer_engine::command::{PutRequest, RangeReply, TxnOp, TxnReply, TxnRequest};
use coffer_engine::error::ReadError;
use coffer_raftlog::proposal::Outcome;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Request, Response, Status};

/// How often a physical compaction is looked after while somebody waits for it.
const COMPACTION_POLL: Duration = Duration::from_millis(5);

/// The service on one serving thread.
#[derive(Clone)]
pub(crate) struct KvService {
    pub(crate) serving: Arc<Serving>,
}

/// What a range comes to that is asked for at once.
pub(crate) enum AtOnce {
    /// It is answered.
    Told(Result<pb::RangeResponse, Status>),
    /// It has to wait for something.
    Not(pb::RangeRequest),
}

/// A put on its way.
pub(crate) struct PutBegun {
    pub(crate) ticket: Ticket,
    pub(crate) told: PutTold,
}

/// What is to be told of a put.
#[derive(Clone, Copy)]
pub(crate) struct PutTold {
    bytes: usize,
}

/// A txn on its way.
pub(crate) struct TxnBegun {
    pub(crate) ticket: Ticket,
    pub(crate) told: TxnTold,
}

/// What is to be told of a txn.
pub(crate) struct TxnTold {
    counted: Counted,
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

    /// Answers a range that needs nobody and no time: of one key, or a count, on a state that is known to be the newest, while
    /// no page is likely to come from the disk.
    pub(crate) fn range_at_once(&self, request: pb::RangeRequest) -> AtOnce {
        let tiny = request.range_end.is_empty() || (request.count_only && request.revision <= 0);
        let shared = &self.serving.shared;
        let current = request.serializable || shared.node.reads_at_once().is_ok_and(|at_once| at_once);
        if !tiny || !current || self.serving.is_cold() {
            return AtOnce::Not(request);
        }
        if let Err(error) = check::range(&request) {
            return AtOnce::Told(Err(error.into()));
        }
        let request = wire::range(request);
        let began = Instant::now();
        let told = read::look_here(&self.serving, |reader| reader.range(&request));
        AtOnce::Told(self.range_told(told, began))
    }

    fn range_told(
        &self,
        told: Result<RangeReply, ReadError>,
        began: Instant,
    ) -> Result<pb::RangeResponse, Status> {
        let shared = &self.serving.shared;
        shared.metrics.range(told.is_ok(), began.elapsed());
        let reply = told.map_err(|error| shared.read_error(error))?;
        self.count(Count::Ranges, 1);
        let revision = reply.current_revision;
        Ok(wire::range_reply(reply, header(shared, revision)))
    }

    /// Whether there is room for a put: if not, it takes the long way, which raises the alarm.
    pub(crate) fn has_room_for_put(&self, request: &pb::PutRequest) -> bool {
        propose::has_room(&self.serving.shared, quota::put(request))
    }

    /// Checks a put for which there is room, and hands it to the log.
    pub(crate) fn begin_put(&self, request: pb::PutRequest) -> Result<PutBegun, Status> {
        check::put(&request)?;
        let bytes = request.encoded_len();
        let told = PutTold { bytes: request.key.len() + request.value.len() };
        Ok(PutBegun { ticket: propose::begin(&self.serving, wire::put(request), bytes)?, told })
    }

    /// What the log made of it.
    pub(crate) fn end_put(&self, told: PutTold, outcome: Outcome) -> Result<pb::PutResponse, Status> {
        let (revision, reply) = propose::end::<PutRequest>(outcome)?;
        self.count(Count::Puts, 1);
        self.count(Count::PutBytes, told.bytes);
        Ok(wire::put_reply(&reply, header(&self.serving.shared, revision)))
    }

    /// Whether there is room for a txn.
    pub(crate) fn has_room_for_txn(&self, request: &pb::TxnRequest) -> bool {
        propose::has_room(&self.serving.shared, quota::txn(request))
    }

    /// Checks a txn for which there is room, and hands it to the log unless it only reads.
    pub(crate) fn begin_txn(&self, request: pb::TxnRequest) -> Result<Result<TxnBegun, TxnReads>, Status> {
        check::txn(&request, self.serving.shared.config.max_txn_ops)?;
        let bytes = request.encoded_len();
        let serializable = is_serializable(&request);
        let request = wire::txn(request)?;
        let counted =
            Counted { success: Branch::of(&request.success), failure: Branch::of(&request.failure) };
        let told = TxnTold { counted };
        if request.is_read_only() {
            return Ok(Err(TxnReads { request, serializable, told }));
        }
        Ok(Ok(TxnBegun { ticket: propose::begin(&self.serving, request, bytes)?, told }))
    }

    /// What the log made of it.
    pub(crate) fn end_txn(&self, told: &TxnTold, outcome: Outcome) -> Result<pb::TxnResponse, Status> {
        let (revision, reply) = propose::end::<TxnRequest>(outcome)?;
        Ok(self.txn_told(told, revision, reply))
    }

    /// Does a txn that only reads.
    pub(crate) async fn read_txn(&self, reads: TxnReads) -> Result<pb::TxnResponse, Status> {
        let TxnReads { request, serializable, told } = reads;
        if !serializable {
            read::linearizable(&self.serving).await?;
        }
        let shared = &self.serving.shared;
        let short = read::is_short_txn(shared.reader(), &request);
        let read = read::look(&self.serving, short, move |reader| reader.read_txn(&request)).await?;
        let (revision, reply) = read.map_err(|error| shared.read_error(error))?;
        Ok(self.txn_told(&told, revision, reply))
    }

    fn txn_told(&self, told: &TxnTold, revision: i64, reply: TxnReply) -> pb::TxnResponse {
        self.count_txn(&told.counted, &reply);
        wire::txn_reply(reply, header(&self.serving.shared, revision))
    }
}

/// A txn that only reads.
pub(crate) struct TxnReads {
    request: TxnRequest,
    serializable: bool,
    told: TxnTold,
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
        let request = wire::range(request);
        let short = read::is_short(self.serving.shared.reader(), &request);
        let began = Instant::now();
        let told = read::look_while(&self.serving, short, move |reader, wanted| {
            reader.range_while(&request, true, wanted).transpose()
        });
        self.range_told(told.await?, began).map(Response::new)
    }

    type RangeStreamStream = BoxStream<'static, Result<pb::RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        check::range_stream(&request)?;
        if !request.serializable {
            read::linearizable(&self.serving).await?;
        }
        self.count(Count::Ranges, 1);
        let parts = range_stream::parts(Arc::clone(&self.serving), wire::range(request));
        Ok(Response::new(parts.boxed()))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let request = request.into_inner();
        propose::ensure_room(&self.serving, quota::put(&request)).await?;
        let PutBegun { ticket, told } = self.begin_put(request)?;
        let outcome = propose::wait(&self.serving.shared, ticket).await?;
        self.end_put(told, outcome).map(Response::new)
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
        match self.begin_txn(request)? {
            Ok(TxnBegun { ticket, told }) => {
                let outcome = propose::wait(&self.serving.shared, ticket).await?;
                self.end_txn(&told, outcome).map(Response::new)
            }
            Err(reads) => self.read_txn(reads).await.map(Response::new),
        }
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
