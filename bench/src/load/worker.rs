//! A client: what it asks for next.

use super::answer::Found;
use super::drive::Run;
use super::keys::{END, FIRST, Speller, drawn, scatter};
use super::lease::Renewals;
use super::wire::Wire;
use super::{Failed, Work};
use bytes::{BufMut as _, Bytes, BytesMut};
use coffer_server::proto::etcdserverpb as pb;
use std::rc::Rc;

/// What a latency is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put,
    Range,
    Lease,
    Event,
}

/// A client, waiting for one answer at a time.
pub(super) struct Worker {
    run: Rc<Run>,
    wire: Wire,
    speller: Speller,
    pages: Pages,
    renewals: Option<Renewals>,
}

impl Worker {
    pub(super) fn new(run: &Rc<Run>, wire: Wire) -> Worker {
        let pages = Pages::new(run.options.limit, run.pinned);
        let speller = Speller::new(run.options.key_bytes);
        Worker { run: Rc::clone(run), wire, speller, pages, renewals: None }
    }

    /// The same, renewing leases.
    pub(super) fn with_renewals(self, renewals: Renewals) -> Worker {
        Worker { renewals: Some(renewals), ..self }
    }

    /// Sends requests as their turn comes, to the end of the run.
    pub(super) async fn work(mut self) -> Result<(), Failed> {
        let run = Rc::clone(&self.run);
        while let Some((number, due)) = run.turn().await {
            match self.request(number).await {
                Ok(kind) => run.note(kind, due, number),
                Err(error) => run.note_error(error)?,
            }
        }
        Ok(())
    }

    /// Request `number` of the run.
    async fn request(&mut self, number: u64) -> Result<Kind, Failed> {
        let (work, run) = (self.run.options.work, Rc::clone(&self.run));
        let drawn = drawn(run.options.seed, number);
        match work {
            Work::Fill => self.put(number, drawn).await,
            Work::Put => self.put(run.chooser.choose(number), drawn).await,
            Work::Mixed if scatter(drawn) % 100 >= run.options.range_percent => {
                self.put(run.chooser.choose(number), drawn).await
            }
            Work::Watch | Work::Catchup => self.put_watched(number, drawn).await,
            Work::Txn => self.txn(run.chooser.choose(number), drawn).await,
            Work::LeaseGrant => {
                self.wire.lease_grant(run.options.lease_ttl).await?;
                Ok(Kind::Lease)
            }
            Work::KeepAlive => {
                self.renewals.as_mut().ok_or("a client without leases")?.renew().await?;
                Ok(Kind::Lease)
            }
            _ => self.read(work, number).await,
        }
    }

    async fn put(&mut self, key: u64, drawn: u64) -> Result<Kind, Failed> {
        let (key, value) = (self.speller.key(key), self.run.values.value(drawn));
        self.wire.put(pb::PutRequest { key, value, ..Default::default() }).await?;
        Ok(Kind::Put)
    }

    /// A put that says when it was sent, and whose watchers are counted.
    async fn put_watched(&mut self, number: u64, drawn: u64) -> Result<Kind, Failed> {
        let key = self.run.watched_key(number);
        let value = self.run.values.stamped(drawn, self.run.elapsed_us());
        let request = pb::PutRequest { key: self.speller.key(key), value, ..Default::default() };
        self.wire.put(request).await?;
        self.run.expect_events_of(key);
        Ok(Kind::Put)
    }

    async fn txn(&mut self, key: u64, drawn: u64) -> Result<Kind, Failed> {
        let (key, value) = (self.speller.key(key), self.run.values.value(drawn));
        self.wire.txn(update(pb::PutRequest { key, value, ..Default::default() })).await?;
        Ok(Kind::Put)
    }

    async fn read(&mut self, work: Work, number: u64) -> Result<Kind, Failed> {
        let one = |key| pb::RangeRequest { key, revision: self.run.pinned, ..Default::default() };
        let limit = self.run.options.limit;
        let request = match work {
            Work::Page => self.pages.next(),
            Work::Count => {
                let all = one(Bytes::from_static(FIRST));
                pb::RangeRequest { range_end: Bytes::from_static(END), count_only: true, ..all }
            }
            _ => {
                let one = one(self.speller.key(self.run.chooser.choose(number)));
                match work {
                    Work::List => pb::RangeRequest { range_end: Bytes::from_static(END), limit, ..one },
                    Work::Serializable => pb::RangeRequest { serializable: true, ..one },
                    _ => one,
                }
            }
        };
        let found = self.wire.range(request).await;
        if work == Work::Page {
            self.pages.turn(found.as_ref().ok());
        }
        self.run.note_found(found?.kvs);
        Ok(Kind::Range)
    }
}

/// An update as Kubernetes makes it: put if the key is as it was seen, else read it. Whoever runs alone has seen it.
fn update(put: pb::PutRequest) -> pb::TxnRequest {
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Greater.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: put.key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(0)),
        ..Default::default()
    };
    let read = pb::RangeRequest { key: put.key.clone(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(pb::request_op::Request::RequestPut(put))],
        failure: vec![op(pb::request_op::Request::RequestRange(read))],
    }
}

/// A walk over all keys, page by page, and again from the first one.
#[derive(Debug)]
struct Pages {
    limit: i64,
    /// At which revision the first page is read; 0: the newest.
    pinned: i64,
    from: Bytes,
    revision: i64,
}

impl Pages {
    fn new(limit: i64, pinned: i64) -> Pages {
        Pages { limit, pinned, from: Bytes::from_static(FIRST), revision: pinned }
    }

    /// The request for the next page.
    fn next(&self) -> pb::RangeRequest {
        pb::RangeRequest {
            key: self.from.clone(),
            range_end: Bytes::from_static(END),
            limit: self.limit,
            revision: self.revision,
            ..Default::default()
        }
    }

    /// Goes on behind the page that was found; from the first one if that was the last, or there was none to be had.
    fn turn(&mut self, found: Option<&Found>) {
        let Some(Found { more: true, revision, last_key: Some(last), .. }) = found else {
            *self = Pages::new(self.limit, self.pinned);
            return;
        };
        if self.revision == 0 {
            self.revision = *revision;
        }
        // the lowest key behind the last one
        let mut from = BytesMut::with_capacity(last.len() + 1);
        from.put_slice(last);
        from.put_u8(0);
        self.from = from.freeze();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::keys::key;

    /// What a store with these keys answers at revision 7.
    fn answer(keys: &[Bytes], request: &pb::RangeRequest) -> Found {
        let in_range = |key: &&Bytes| **key >= request.key && **key < request.range_end;
        let all: Vec<&Bytes> = keys.iter().filter(in_range).collect();
        let kvs = all.len().min(request.limit as usize);
        Found {
            revision: 7,
            kvs: kvs as u64,
            more: kvs < all.len(),
            count: all.len() as i64,
            last_key: kvs.checked_sub(1).map(|last| all[last].clone()),
        }
    }

    #[test]
    fn pages_hold_every_key_once_and_begin_again_behind_the_last() {
        let keys: Vec<Bytes> = (0..10).map(|number| key(number, 20)).collect();
        for (limit, pages) in [(1, 10), (3, 4), (5, 2), (10, 1), (100, 1)] {
            let mut walk = Pages::new(limit, 0);
            for _ in 0..2 {
                let mut found = 0;
                for page in 0..pages {
                    let request = walk.next();
                    assert_eq!(request.revision, if page == 0 { 0 } else { 7 });
                    assert_eq!(answer(&keys, &request).count, 10 - found, "keys were left out or come twice");
                    let answer = answer(&keys, &request);
                    found += answer.kvs as i64;
                    walk.turn(Some(&answer));
                }
                assert_eq!((found, &walk.from[..]), (10, FIRST));
            }
        }
    }

    #[test]
    fn a_pinned_walk_stays_at_its_revision_and_one_that_failed_begins_again() {
        let keys: Vec<Bytes> = (0..3).map(|number| key(number, 20)).collect();
        let mut walk = Pages::new(1, 4);
        for _ in 0..2 {
            assert_eq!((walk.next().revision, &walk.next().key[..]), (4, FIRST));
            let answer = answer(&keys, &walk.next());
            walk.turn(Some(&answer));
            assert_eq!((walk.next().revision, walk.next().key.len()), (4, 21));
            walk.turn(None);
        }
    }

    #[test]
    fn an_update_puts_what_it_compares() {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let txn = update(put.clone());
        assert_eq!(txn.compare[0].key, put.key);
        let Some(pb::request_op::Request::RequestPut(inner)) = &txn.success[0].request else {
            panic!("no put in {txn:?}")
        };
        assert_eq!(inner, &put);
    }
}
