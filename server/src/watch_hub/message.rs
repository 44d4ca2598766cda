//! What a stream sends, without its protobuf.

use bytes::Bytes;

/// Bytes counted for a message beside its events: its place in the queue, its header on the wire.
pub(super) const MESSAGE_OVERHEAD_BYTES: usize = 96;

/// A response to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whom it is about, [`super::NO_WATCH_ID`] for none or several.
    pub watch_id: i64,
    /// The header's revision.
    pub revision: i64,
    /// What it says.
    pub body: Body,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The watcher stands.
    Created,
    /// The watcher was never made: created and canceled at once.
    Refused(&'static str),
    /// Canceled as asked.
    Canceled,
    /// Canceled because history below this revision is gone.
    Compacted(i64),
    /// Events, each as the field of a WatchResponse.
    Events {
        /// The encoded fields, in order.
        events: Vec<Bytes>,
        /// Whether more of the same response follows.
        fragment: bool,
    },
    /// Every event up to the header's revision was sent.
    Progress,
    /// History could not be read: the stream ends with this fault, in words.
    Failed(String),
}

impl Message {
    /// Bytes it holds, for the bound of its queue.
    pub fn held_bytes(&self) -> usize {
        let events = match &self.body {
            Body::Events { events, .. } => events_bytes(events),
            _ => 0,
        };
        MESSAGE_OVERHEAD_BYTES + events
    }

    /// Events it carries.
    pub fn events(&self) -> usize {
        match &self.body {
            Body::Events { events, .. } => events.len(),
            _ => 0,
        }
    }
}

pub(super) fn events_bytes(events: &[Bytes]) -> usize {
    events.iter().map(Bytes::len).sum()
}

/// Cuts the events of one response into parts below `part_bytes_max` each, one event at least (etcd's sendFragments).
pub(super) fn fragments(events: Vec<Bytes>, part_bytes_max: usize) -> Vec<Vec<Bytes>> {
    if events.len() < 2 || MESSAGE_OVERHEAD_BYTES + events_bytes(&events) < part_bytes_max {
        return vec![events];
    }
    let mut parts = Vec::new();
    let mut part: Vec<Bytes> = Vec::new();
    let mut part_bytes = MESSAGE_OVERHEAD_BYTES;
    for event in events {
        if !part.is_empty() && part_bytes + event.len() >= part_bytes_max {
            parts.push(std::mem::take(&mut part));
            part_bytes = MESSAGE_OVERHEAD_BYTES;
        }
        part_bytes += event.len();
        part.push(event);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(sizes: &[usize], max: usize) -> Vec<Vec<usize>> {
        let events = sizes.iter().map(|size| Bytes::from(vec![0; *size])).collect();
        fragments(events, max).iter().map(|part| part.iter().map(Bytes::len).collect()).collect()
    }

    #[test]
    fn a_response_is_cut_only_where_it_is_too_large_and_has_two_events() {
        assert_eq!(cut(&[10, 10, 10], 1000), [vec![10, 10, 10]]);
        assert_eq!(cut(&[5000], 1000), [vec![5000]]);
        assert_eq!(cut(&[400, 400, 400, 2000, 10], 1000), [vec![400, 400], vec![400], vec![2000], vec![10]]);
    }
}
