//! RangeStream: a range in parts, all read at one revision.
//!
//! The first part has a few keys, so that the client sees something soon; later ones double or halve to stay near the
//! size of the largest request, as etcd 3.7's do. Parts are read when the client can take them: one part is all the
//! memory a stream holds. Header, `more` and `count` stand in the last part alone.
//!
//! A range sorted by anything but the key (without an order, all that passes the checks) comes whole in one part: its
//! order is only known when all of it is read.

use super::header::header;
use super::wire;
use crate::proto::etcdserverpb as pb;
use crate::serving::Shared;
use coffer_engine::command::{RangeReply, RangeRequest, SortTarget};
use coffer_engine::error::ReadError;
use futures_util::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::Status;

/// Keys of the first part.
const FIRST_KEYS: i64 = 10;

/// The parts of a range.
pub(crate) struct RangeStream {
    shared: Arc<Shared>,
    request: RangeRequest,
    parts: Parts,
    over: bool,
}

/// How far the parts have come.
struct Parts {
    /// Keys of the next part.
    keys: i64,
    /// Keys that may still be sent; `None` without a limit.
    left: Option<i64>,
    /// What the first part found: the store's revision and the count.
    first: Option<(i64, i64)>,
}

impl RangeStream {
    pub(crate) fn new(shared: Arc<Shared>, request: RangeRequest) -> RangeStream {
        let left = (request.limit > 0).then_some(request.limit);
        RangeStream { shared, request, parts: Parts { keys: FIRST_KEYS, left, first: None }, over: false }
    }

    fn next_part(&mut self) -> Result<pb::RangeStreamResponse, ReadError> {
        let reader = self.shared.reader();
        let limit = self.parts.left.map_or(self.parts.keys, |left| left.min(self.parts.keys));
        let in_parts = !self.request.count_only && self.request.sort_target == SortTarget::Key;
        if in_parts {
            self.request.limit = limit;
        }
        let reply = match self.parts.first {
            None => reader.range(&self.request)?,
            Some(_) => reader.range_uncounted(&self.request)?,
        };
        let (current, count) = *self.parts.first.get_or_insert((reply.current_revision, reply.count));
        if self.request.revision <= 0 {
            self.request.revision = current;
        }
        self.advance(&reply);
        self.over |= !in_parts;
        let more = reply.more;
        let mut response = wire::range_reply(reply, None);
        (response.more, response.count) = (false, 0);
        if self.over {
            response.header = header(&self.shared, current);
            response.more = more;
            response.count = count;
        }
        Ok(pb::RangeStreamResponse { range_response: Some(response) })
    }

    /// Moves behind the keys of a part and sizes the next one.
    fn advance(&mut self, reply: &RangeReply) {
        let sent = i64::try_from(reply.kvs.len()).unwrap_or(i64::MAX);
        if let Some(left) = &mut self.parts.left {
            *left -= sent;
        }
        self.over = !reply.more || self.parts.left.is_some_and(|left| left <= 0);
        let Some(last) = reply.kvs.last() else {
            self.over = true;
            return;
        };
        let mut next = Vec::with_capacity(last.key.len() + 1);
        next.extend_from_slice(&last.key);
        next.push(0);
        self.request.range.key = next.into();
        let bytes: usize = reply.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        self.parts.keys = next_size(self.parts.keys, bytes, self.shared.request_bytes_max);
    }
}

/// Keys of the next part: doubled while parts are small, halved while they are large.
fn next_size(keys: i64, bytes: usize, aim: usize) -> i64 {
    if bytes < aim / 2 {
        keys.saturating_mul(2)
    } else if bytes > aim.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

impl Stream for RangeStream {
    type Item = Result<pb::RangeStreamResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.over {
            return Poll::Ready(None);
        }
        let part = self.next_part();
        self.over |= part.is_err();
        Poll::Ready(Some(part.map_err(|error| self.shared.read_error(error))))
    }
}

#[cfg(test)]
mod tests {
    use super::next_size;

    #[test]
    fn parts_double_while_small_and_halve_while_large() {
        assert_eq!(next_size(10, 400, 1000), 20);
        assert_eq!(next_size(10, 500, 1000), 10);
        assert_eq!(next_size(10, 2000, 1000), 10);
        assert_eq!(next_size(10, 2001, 1000), 5);
        assert_eq!(next_size(1, 9999, 1000), 1);
    }
}
