//! A write: the limits at the door, the slot where the answer will land, the deadline.
//!
//! Each request type names its answer, so that no handler can receive another's. Order of the checks as etcd's
//! (server/etcdserver/v3_server.go): how far applying lags, how large the request is, then the queue.

use crate::rpc::status::Error;
use crate::serving::{Serving, Shared, Ticket};
use coffer_engine::command::{
    AlarmAction, AlarmKind, AlarmMember, AlarmRequest, Command, DeleteRangeReply, DeleteRangeRequest,
    PutReply, PutRequest, Reply, TxnReply, TxnRequest,
};
use coffer_raftlog::proposal::{Outcome, Request};

/// Entries committed and not applied beyond which new requests are refused (etcd's maxGapBetweenApplyAndCommitIndex).
pub const APPLY_LAG_MAX: u64 = 5_000;
/// The same for requests that make room (etcd 3.7's PriorityRequest).
pub const APPLY_LAG_PRIORITY_MAX: u64 = 10_000;
/// What etcd's log entry carries around a request: the envelope's tags, lengths and request id.
const ENVELOPE_BYTES: usize = 18;

/// A request that becomes a command, and its answer.
pub trait Proposal {
    /// What the store answers.
    type Answer;

    /// The command.
    fn into_command(self) -> Command;

    /// The answer, if `reply` is one to such a command.
    fn answer(reply: Reply) -> Option<Self::Answer>;

    /// Whether it goes through while applying lags a little: it makes room.
    fn is_priority(&self) -> bool {
        false
    }
}

macro_rules! proposal {
    ($request:ty, $answer:ty, $self:ident => $command:expr, $reply:pat => $value:expr) => {
        impl Proposal for $request {
            type Answer = $answer;

            fn into_command($self) -> Command {
                $command
            }

            fn answer(reply: Reply) -> Option<$answer> {
                match reply {
                    $reply => Some($value),
                    _ => None,
                }
            }
        }
    };
}

/// Gives up the history below a revision.
#[derive(Clone, Copy, Debug)]
pub struct Compact(pub i64);

/// Makes a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseGrant {
    /// Its id, not 0.
    pub id: i64,
    /// Seconds.
    pub ttl: i64,
}

/// Ends a lease.
#[derive(Clone, Copy, Debug)]
pub struct LeaseRevoke(pub i64);

/// Tells the cluster this member's name and client URLs.
#[derive(Clone, Debug)]
pub struct Publish {
    /// The member.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its client URLs.
    pub client_urls: Vec<String>,
}

proposal!(PutRequest, PutReply, self => Command::Put(self), Reply::Put(reply) => reply);
proposal!(DeleteRangeRequest, DeleteRangeReply, self => Command::DeleteRange(self), Reply::DeleteRange(reply) => reply);
proposal!(TxnRequest, TxnReply, self => Command::Txn(self), Reply::Txn(reply) => reply);
proposal!(Compact, (), self => Command::Compact { revision: self.0 }, Reply::Compact => ());
proposal!(LeaseGrant, (i64, i64), self => Command::LeaseGrant { id: self.id, ttl: self.ttl },
    Reply::LeaseGrant { id, ttl } => (id, ttl));
proposal!(AlarmRequest, Vec<AlarmMember>, self => Command::Alarm(self), Reply::Alarm(alarms) => alarms);
proposal!(Publish, (), self => Command::MemberAttributes {
    id: self.id, name: self.name, client_urls: self.client_urls
}, Reply::MemberAttributes => ());

impl Proposal for LeaseRevoke {
    type Answer = ();

    fn into_command(self) -> Command {
        Command::LeaseRevoke { id: self.0 }
    }

    fn answer(reply: Reply) -> Option<()> {
        matches!(reply, Reply::LeaseRevoke).then_some(())
    }

    fn is_priority(&self) -> bool {
        true
    }
}

/// Proposes a request and waits for its answer; with it comes the store's revision after it.
///
/// `wire_bytes` is the request's length in etcd's protobuf, which is what etcd's bound is about.
///
/// # Errors
/// A refusal of the store, or why it was not done: [`Error::RequestTooLarge`], [`Error::TooManyRequests`],
/// [`Error::Timeout`] (it may still be done), [`Error::LeaderChanged`], [`Error::NoSpace`], [`Error::Stopped`].
pub async fn propose<P: Proposal>(
    serving: &Serving,
    request: P,
    wire_bytes: usize,
) -> Result<(i64, P::Answer), Error> {
    let ticket = begin(serving, request, wire_bytes)?;
    end::<P>(wait(&serving.shared, ticket).await?)
}

/// The first half of [`propose`]: the request is on its way, and its answer will come to the ticket.
///
/// # Errors
/// As [`propose`], for what is refused at once.
pub fn begin<P: Proposal>(serving: &Serving, request: P, wire_bytes: usize) -> Result<Ticket, Error> {
    let shared = &serving.shared;
    check_lag(shared, if request.is_priority() { APPLY_LAG_PRIORITY_MAX } else { APPLY_LAG_MAX })?;
    if wire_bytes.saturating_add(ENVELOPE_BYTES) > shared.request_bytes_max {
        return Err(Error::RequestTooLarge);
    }
    let ticket = serving.mailbox.ticket().ok_or(Error::TooManyRequests)?;
    let command = request.into_command();
    shared.node.submit(Request::Propose { command, reply_to: ticket.reply_to() })?;
    Ok(ticket)
}

/// The second half: what came, as the answer to a request of this kind.
///
/// # Errors
/// As [`propose`], for what is known only now.
pub fn end<P: Proposal>(outcome: Outcome) -> Result<(i64, P::Answer), Error> {
    match outcome {
        Outcome::Applied(applied) => {
            let answer = P::answer(applied.outcome?).ok_or(Error::WrongAnswer)?;
            Ok((applied.revision, answer))
        }
        Outcome::Failed(busy) => Err(busy.into()),
        _ => Err(Error::WrongAnswer),
    }
}

/// Renews a lease; the seconds granted, 0 if it is unknown or has expired.
///
/// # Errors
/// As [`propose`].
pub async fn renew(serving: &Serving, id: i64) -> Result<i64, Error> {
    let shared = &serving.shared;
    let ticket = serving.mailbox.ticket().ok_or(Error::TooManyRequests)?;
    shared.node.submit(Request::Renew { id, reply_to: ticket.reply_to() })?;
    match wait(shared, ticket).await? {
        Outcome::Renewed { ttl } => Ok(ttl),
        Outcome::Applied(applied) => match applied.outcome {
            Err(refusal) => Err(refusal.into()),
            Ok(_) => Err(Error::WrongAnswer),
        },
        _ => Err(Error::WrongAnswer),
    }
}

/// Refuses a request that costs room when there is too little; then the alarm goes up, too.
///
/// # Errors
/// [`Error::NoSpace`].
pub async fn ensure_room(serving: &Serving, cost: u64) -> Result<(), Error> {
    let shared = &serving.shared;
    if has_room(shared, cost) {
        return Ok(());
    }
    let member_id = shared.member_id;
    let raise = AlarmRequest { action: AlarmAction::Activate, member_id, alarm: AlarmKind::NoSpace };
    let up = shared.reader().alarms().contains(&AlarmMember { member_id, alarm: AlarmKind::NoSpace });
    if !up && let Err(error) = propose(serving, raise, 0).await {
        tracing::warn!(error = %error, "failed to raise the NOSPACE alarm");
    }
    Err(Error::NoSpace)
}

/// Whether there is room for a request that costs so much.
pub fn has_room(shared: &Shared, cost: u64) -> bool {
    let Some(quota) = shared.config.quota_bytes else { return true };
    cost == 0 || shared.reader().sizes().in_use_bytes.saturating_add(cost) < quota
}

/// Waits for an answer, but not longer than a request may take.
pub(crate) async fn wait(shared: &Shared, ticket: Ticket) -> Result<Outcome, Error> {
    match tokio::time::timeout(shared.request_timeout, ticket).await {
        Ok(Outcome::Failed(busy)) => Err(busy.into()),
        Ok(outcome) => Ok(outcome),
        Err(_) => Err(Error::Timeout),
    }
}

fn check_lag(shared: &Shared, lag_max: u64) -> Result<(), Error> {
    let status = shared.node.status();
    if status.commit.saturating_sub(status.applied) > lag_max {
        return Err(Error::TooManyRequests);
    }
    Ok(())
}
