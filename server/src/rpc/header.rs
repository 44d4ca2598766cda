//! Cluster, member, revision and term on every reply.

use crate::proto::etcdserverpb::ResponseHeader;
use crate::serving::Shared;

/// The header of a reply made when the store stood at `revision`.
pub(crate) fn header(shared: &Shared, revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        cluster_id: shared.cluster_id,
        member_id: shared.member_id,
        revision,
        raft_term: shared.node.status().term,
    })
}

/// The header of a reply with the store's revision now.
pub(crate) fn header_now(shared: &Shared) -> Option<ResponseHeader> {
    header(shared, shared.reader().position().revision)
}
