//! RangeStream: a range in parts, all read at one revision.
//!
//! The first part has a few keys, so that the client sees something soon; later ones double or halve to stay near the
//! size of the largest request, as etcd 3.7's do, up to a bound. Parts are read when the client can take them: one part is
//! all the memory a stream holds. Header, `more` and `count` stand in the last part alone.
//!
//! Each part is a look as that of any range: here if it is short, else on another thread.
//!
//! A range sorted by anything but the key (without an order, all that passes the checks) comes whole in one part: its
//! order is only known when all of it is read.

use super::header::header;
use super::wire;
use crate::proto::etcdserverpb as pb;
use crate::read;
use crate::serving::Serving;
use coffer_engine::command::{RangeReply, RangeRequest, SortTarget};
use futures_util::Stream;
use futures_util::stream;
use std::sync::Arc;
use tonic::Status;

/// Keys of the first part.
const FIRST_KEYS: i64 = 10;
/// Keys of the largest part: small ones would be read for long before the client sees any of them.
const PART_KEYS_MAX: i64 = 10_000;

/// The parts of a range.
pub(crate) fn parts(
    serving: Arc<Serving>,
    request: RangeRequest,
) -> impl Stream<Item = Result<pb::RangeStreamResponse, Status>> + Send {
    let left = (request.limit > 0).then_some(request.limit);
    let parts = Parts { serving, request, keys: FIRST_KEYS, left, first: None, over: false };
    stream::unfold(parts, |mut parts| async move {
        let part = parts.next().await?;
        Some((part, parts))
    })
}

/// How far the parts have come.
struct Parts {
    serving: Arc<Serving>,
    /// What is left of the range.
    request: RangeRequest,
    /// Keys of the next part.
    keys: i64,
    /// Keys that may still be sent; `None` without a limit.
    left: Option<i64>,
    /// What the first part found: the store's revision and the count.
    first: Option<(i64, i64)>,
    over: bool,
}

impl Parts {
    async fn next(&mut self) -> Option<Result<pb::RangeStreamResponse, Status>> {
        if self.over {
            return None;
        }
        let part = self.read_part().await;
        self.over |= part.is_err();
        Some(part)
    }

    async fn read_part(&mut self) -> Result<pb::RangeStreamResponse, Status> {
        let in_parts = !self.request.count_only && self.request.sort_target == SortTarget::Key;
        if in_parts {
            self.request.limit = self.left.map_or(self.keys, |left| left.min(self.keys));
        }
        let shared = Arc::clone(&self.serving.shared);
        let (request, counted) = (self.request.clone(), self.first.is_none());
        let short = read::is_short(shared.reader(), &request);
        let told = read::look_while(&self.serving, short, move |reader, wanted| {
            reader.range_while(&request, counted, wanted).transpose()
        });
        let reply = told.await?.map_err(|error| shared.read_error(error))?;
        let (current, count) = *self.first.get_or_insert((reply.current_revision, reply.count));
        if self.request.revision <= 0 {
            self.request.revision = current;
        }
        self.advance(&reply);
        self.over |= !in_parts;
        let more = reply.more;
        let mut response = wire::range_reply(reply, None);
        (response.more, response.count) = (false, 0);
        if self.over {
            response.header = header(&shared, current);
            response.more = more;
            response.count = count;
        }
        Ok(pb::RangeStreamResponse { range_response: Some(response) })
    }

    /// Moves behind the keys of a part and sizes the next one.
    fn advance(&mut self, reply: &RangeReply) {
        let sent = i64::try_from(reply.kvs.len()).unwrap_or(i64::MAX);
        if let Some(left) = &mut self.left {
            *left -= sent;
        }
        self.over = !reply.more || self.left.is_some_and(|left| left <= 0);
        let Some(last) = reply.kvs.last() else {
            self.over = true;
            return;
        };
        let mut next = Vec::with_capacity(last.key.len() + 1);
        next.extend_from_slice(&last.key);
        next.push(0);
        self.request.range.key = next.into();
        let bytes: usize = reply.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        self.keys = next_size(self.keys, bytes, self.serving.shared.request_bytes_max);
    }
}

/// Keys of the next part: doubled while parts are small, up to the bound, halved while they are large.
fn next_size(keys: i64, bytes: usize, aim: usize) -> i64 {
    if bytes < aim / 2 {
        keys.saturating_mul(2).min(PART_KEYS_MAX)
    } else if bytes > aim.saturating_mul(2) {
        (keys / 2).max(1)
    } else {
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::{PART_KEYS_MAX, next_size};

    #[test]
    fn parts_double_while_small_and_halve_while_large() {
        assert_eq!(next_size(10, 400, 1000), 20);
        assert_eq!(next_size(10, 500, 1000), 10);
        assert_eq!(next_size(10, 2000, 1000), 10);
        assert_eq!(next_size(10, 2001, 1000), 5);
        assert_eq!(next_size(1, 9999, 1000), 1);
        assert_eq!(next_size(PART_KEYS_MAX / 2 + 1, 400, 1000), PART_KEYS_MAX);
    }
}
