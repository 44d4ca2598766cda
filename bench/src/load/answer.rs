//! What a run wants to know of an answer, read off its bytes: the rest of it is not decoded.

use super::Failed;
use crate::grpc::{Fields, Held};
use bytes::Bytes;
use coffer_server::proto::etcdserverpb as pb;

/// Calls `visit` with each field of a message.
fn each_field<'a>(
    message: &'a [u8],
    mut visit: impl FnMut(u64, Held<'a>) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut fields = Fields(message);
    while let Some((number, held)) = fields.next()? {
        visit(number, held)?;
    }
    Ok(())
}

/// The revision of a response's header.
fn revision(header: &[u8]) -> Result<i64, Failed> {
    let mut revision = 0;
    each_field(header, |number, held| {
        if let (3, Held::Number(number)) = (number, held) {
            revision = number as i64;
        }
        Ok(())
    })?;
    Ok(revision)
}

/// Looks whether an answer that says little is one.
///
/// # Errors
/// It has no header.
pub(super) fn acknowledged(message: &[u8]) -> Result<(), Failed> {
    match Fields(message).next()? {
        Some((1, Held::Bytes(_))) => Ok(()),
        _ => Err("an answer without a header".into()),
    }
}

/// Of a RangeResponse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The store's, when it was read.
    pub(super) revision: i64,
    /// Key-values.
    pub(super) kvs: u64,
    /// Whether the limit cut something off.
    pub(super) more: bool,
    /// Keys in the range.
    pub(super) count: i64,
    /// The last key.
    pub(super) last_key: Option<Bytes>,
}

impl Found {
    /// Reads it off the wire's bytes.
    pub(super) fn read(message: &Bytes) -> Result<Found, Failed> {
        let (mut found, mut last) = (Found::default(), None);
        each_field(message, |number, held| {
            match (number, held) {
                (1, Held::Bytes(header)) => found.revision = revision(header)?,
                (2, Held::Bytes(kv)) => {
                    found.kvs += 1;
                    last = Some(kv);
                }
                (3, Held::Number(more)) => found.more = more != 0,
                (4, Held::Number(count)) => found.count = count as i64,
                _ => {}
            }
            Ok(())
        })?;
        if let Some(kv) = last {
            each_field(kv, |number, held| {
                if let (1, Held::Bytes(key)) = (number, held) {
                    found.last_key = Some(message.slice_ref(key));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}

impl From<pb::RangeResponse> for Found {
    fn from(response: pb::RangeResponse) -> Found {
        Found {
            revision: response.header.map_or(0, |header| header.revision),
            kvs: response.kvs.len() as u64,
            more: response.more,
            count: response.count,
            last_key: response.kvs.into_iter().next_back().map(|kv| kv.key),
        }
    }
}

/// Of a LeaseGrantResponse; a LeaseKeepAliveResponse has the same fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) id: i64,
    /// Seconds left; 0: there is no such lease.
    pub(super) ttl: i64,
}

impl Lease {
    /// Reads it off the wire's bytes.
    pub(super) fn read(message: &[u8]) -> Result<Lease, Failed> {
        let mut lease = Lease::default();
        each_field(message, |number, held| {
            match (number, held) {
                (2, Held::Number(id)) => lease.id = id as i64,
                (3, Held::Number(ttl)) => lease.ttl = ttl as i64,
                _ => {}
            }
            Ok(())
        })?;
        Ok(lease)
    }
}

/// Of a WatchResponse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched<'a> {
    pub(super) watch_id: i64,
    pub(super) created: bool,
    pub(super) canceled: bool,
    /// Why it was canceled.
    pub(super) reason: &'a [u8],
    message: &'a [u8],
}

/// An event of a watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Event<'a> {
    /// The revision that it is part of.
    pub(super) revision: i64,
    /// What was put.
    pub(super) value: &'a [u8],
}

impl<'a> Watched<'a> {
    /// Reads all but the events.
    pub(super) fn read(message: &'a [u8]) -> Result<Watched<'a>, Failed> {
        let mut watched = Watched { message, ..Watched::default() };
        each_field(message, |number, held| {
            match (number, held) {
                (2, Held::Number(id)) => watched.watch_id = id as i64,
                (3, Held::Number(created)) => watched.created = created != 0,
                (4, Held::Number(canceled)) => watched.canceled = canceled != 0,
                (6, Held::Bytes(reason)) => watched.reason = reason,
                _ => {}
            }
            Ok(())
        })?;
        Ok(watched)
    }

    /// Calls `visit` with each event.
    pub(super) fn each_event(
        &self,
        mut visit: impl FnMut(Event<'a>) -> Result<(), Failed>,
    ) -> Result<(), Failed> {
        each_field(self.message, |number, held| match (number, held) {
            (11, Held::Bytes(event)) => visit(Event::read(event)?),
            _ => Ok(()),
        })
    }
}

impl<'a> Event<'a> {
    fn read(message: &'a [u8]) -> Result<Event<'a>, Failed> {
        let mut event = Event::default();
        each_field(message, |number, held| {
            let (2, Held::Bytes(kv)) = (number, held) else { return Ok(()) };
            each_field(kv, |number, held| {
                match (number, held) {
                    (3, Held::Number(revision)) => event.revision = revision as i64,
                    (5, Held::Bytes(value)) => event.value = value,
                    _ => {}
                }
                Ok(())
            })
        })?;
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coffer_server::proto::mvccpb;
    use prost::Message as _;

    fn header() -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader { cluster_id: u64::MAX, member_id: 7, revision: 300, raft_term: 2 })
    }

    fn kv(key: &'static str, value: &'static str, mod_revision: i64) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: key.into(),
            value: value.into(),
            mod_revision,
            version: 1,
            ..Default::default()
        }
    }

    #[test]
    fn a_range_read_off_its_bytes_says_what_the_decoded_one_says() {
        for kvs in [vec![], vec![kv("a", "1", 4)], vec![kv("a", "1", 4), kv("b", "", 5), kv("c", "3", 299)]] {
            for more in [false, true] {
                let response = pb::RangeResponse { header: header(), kvs: kvs.clone(), more, count: 1_000 };
                let read = Found::read(&response.encode_to_vec().into()).unwrap();
                assert_eq!(read, Found::from(response));
                assert_eq!((read.kvs, read.revision), (kvs.len() as u64, 300));
            }
        }
        assert!(Found::read(&Bytes::from_static(b"\x0a\x05no")).is_err());
    }

    #[test]
    fn an_answer_has_a_header() {
        assert!(acknowledged(&pb::PutResponse { header: header(), prev_kv: None }.encode_to_vec()).is_ok());
        assert!(acknowledged(&[]).is_err());
    }

    #[test]
    fn a_grant_and_a_renewal_are_read_alike() {
        let grant = pb::LeaseGrantResponse { header: header(), id: -3, ttl: 60, error: String::new() };
        let renewal = pb::LeaseKeepAliveResponse { header: header(), id: -3, ttl: 60 };
        for bytes in [grant.encode_to_vec(), renewal.encode_to_vec()] {
            assert_eq!(Lease::read(&bytes).unwrap(), Lease { id: -3, ttl: 60 });
        }
    }

    #[test]
    fn events_are_read_with_revision_and_value_but_not_the_version_before() {
        let event = |kv, prev_kv| mvccpb::Event { r#type: 0, kv: Some(kv), prev_kv };
        let events = vec![event(kv("a", "new", 8), Some(kv("a", "old", 7))), event(kv("b", "", 9), None)];
        let response = pb::WatchResponse { header: header(), watch_id: 5, events, ..Default::default() };
        let bytes = response.encode_to_vec();
        let watched = Watched::read(&bytes).unwrap();
        assert_eq!((watched.watch_id, watched.created, watched.canceled), (5, false, false));
        let mut seen = Vec::new();
        let each = |event: Event<'_>| {
            seen.push((event.revision, event.value.to_vec()));
            Ok(())
        };
        watched.each_event(each).unwrap();
        assert_eq!(seen, [(8, b"new".to_vec()), (9, Vec::new())]);
        let canceled =
            pb::WatchResponse { canceled: true, cancel_reason: "why".into(), ..Default::default() };
        let bytes = canceled.encode_to_vec();
        let watched = Watched::read(&bytes).unwrap();
        assert!(watched.canceled && watched.reason == b"why");
    }
}
