//! The language of the transcripts: commands and reads as a person would write them, answers as a person would read them.
//!
//! ```text
//! put KEY VALUE [lease=N] [prev] [ignore_value] [ignore_lease]
//! del KEY [END] [prev]
//! get KEY [END] [rev=N] [limit=N] [order=none|asc|desc] [by=key|version|create|mod|value] [keys_only] [count_only]
//!                [min_mod=N] [max_mod=N] [min_create=N] [max_create=N]
//! txn [if COMPARE...] [then OP ; OP...] [else OP ; OP...]        OP: put, del, get, txn [ ... ]
//!        COMPARE: version|create|mod|value|lease(KEY[,END])=|>|<|!=OPERAND, without blanks
//! read-txn, as txn, through the reader
//! compact N | step BUDGET
//! clock MS | grant ID TTL | revoke ID | renew ID... | expire ID | lease ID | leases | expired MS LIMIT
//! alarm get|activate|deactivate MEMBER none|nospace|corrupt
//! bootstrap CLUSTER ID[,learner]... | attributes ID NAME URL... | members
//! batch | publish                    commands between them are published together, which prints their events
//! history KEY [END] [from=N] [max=N] | hash [N] | position | sizes
//! ```
//! In keys and values `\0` stands for a zero byte and `""` for nothing.

use bytes::Bytes;
use coffer_engine::command::*;
use coffer_engine::mvcc::{Event, EventKind, KeyRange, KeyValue};
use coffer_engine::store::Store;
use coffer_engine::watch::EventBatch;
use std::fmt::Write;

pub(crate) struct Session {
    store: Store,
    clock_ms: u64,
    /// Commands waiting for `publish`.
    batch: Option<Vec<Command>>,
}

impl Session {
    pub(crate) fn new() -> Session {
        Session { store: Store::new(), clock_ms: 0, batch: None }
    }

    /// Runs one line; its answer, in lines.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut args = Args { words: &words[1..], at: 0 };
        let out = match words[0] {
            "get" => self.get(&mut args),
            "read-txn" => match self.store.reader().read_txn(&args.txn()) {
                Ok((revision, reply)) => format!("{}rev {revision}\n", txn_text(&reply, 0)),
                Err(refusal) => format!("refused: {refusal}\n"),
            },
            "step" => {
                format!(
                    "{}\n",
                    if self.store.compact_step(args.number() as usize).unwrap() { "more" } else { "done" }
                )
            }
            "clock" => {
                self.clock_ms = args.number() as u64;
                String::new()
            }
            "lease" => match self.store.reader().lease(args.number(), true).unwrap() {
                Some(lease) => format!("{lease:?}\n"),
                None => "none\n".to_owned(),
            },
            "leases" => self
                .store
                .reader()
                .leases()
                .unwrap()
                .iter()
                .map(|l| format!("{} until {}\n", l.id, l.deadline_ms))
                .collect(),
            "expired" => {
                let (clock_ms, limit) = (args.number() as u64, args.number() as usize);
                format!("{:?}\n", self.store.expired_leases(clock_ms, limit).unwrap())
            }
            "members" => self.members(),
            "history" => self.history(&mut args),
            "hash" => match self.store.reader().hash_kv(args.optional_number().unwrap_or(0)) {
                Ok(hash) => format!(
                    "{:08x} at {} compacted {} current {}\n",
                    hash.hash, hash.hash_revision, hash.compact_revision, hash.current_revision
                ),
                Err(refusal) => format!("refused: {refusal}\n"),
            },
            "position" => format!("{:?}\n", self.store.reader().position()),
            "sizes" => {
                let sizes = self.store.reader().sizes();
                format!("{} bytes in use, {} keys, {} leases\n", sizes.in_use_bytes, sizes.keys, sizes.leases)
            }
            "batch" => {
                self.batch = Some(Vec::new());
                String::new()
            }
            "publish" => {
                let batch = self.batch.take().expect("publish follows batch");
                self.apply(&batch, true)
            }
            word => {
                let command = args.command(word);
                match &mut self.batch {
                    Some(batch) => {
                        batch.push(command);
                        String::new()
                    }
                    None => self.apply(&[command], false),
                }
            }
        };
        assert!(args.is_done(), "unused words in: {line}");
        if let Err(broken) = self.store.reader().check() {
            panic!("after `{line}`: {broken}");
        }
        out
    }

    fn apply(&mut self, commands: &[Command], with_events: bool) -> String {
        let mut index = self.store.applied();
        let mut tx = self.store.begin();
        let mut out = String::new();
        for command in commands {
            index += 1;
            // through the encoding, as it would come from the log
            let bytes = Stamped { clock_ms: self.clock_ms, command: command.clone() }.encode().unwrap();
            let applied = tx.apply(index, 1, &Stamped::decode(&bytes).unwrap()).unwrap();
            match &applied.outcome {
                Ok(reply) => out += &format!("{}rev {}\n", reply_text(reply), applied.revision),
                Err(refusal) => out += &format!("refused: {refusal}; rev {}\n", applied.revision),
            }
        }
        let published = tx.publish();
        if with_events {
            out += &match published.events.as_deref() {
                Some(EventBatch { revision, events }) => {
                    format!("batch of rev {revision}\n{}", events_text(events))
                }
                None => "no events\n".to_owned(),
            };
        }
        out
    }

    fn get(&mut self, args: &mut Args<'_>) -> String {
        match self.store.reader().range(&args.get()) {
            Ok(reply) => format!("{}rev {}\n", range_text(&reply, 0), reply.current_revision),
            Err(refusal) => format!("refused: {refusal}\n"),
        }
    }

    fn members(&mut self) -> String {
        let reader = self.store.reader();
        let mut out = format!("cluster {}, {:?}\n", reader.cluster_id(), self.store.conf_state());
        for member in reader.members() {
            let kind = if member.is_learner { "learner" } else { "voter" };
            writeln!(out, "{} {kind} {:?} {:?}", member.id, member.name, member.client_urls).unwrap();
        }
        out
    }

    fn history(&mut self, args: &mut Args<'_>) -> String {
        let range = args.range();
        let from = args.option("from").unwrap_or(0);
        let max = args.option("max").unwrap_or(1000) as usize;
        match self.store.reader().history(&range, from, max) {
            Ok(page) => format!("{}next {} current {}\n", events_text(&page.events), page.next, page.current),
            Err(refusal) => format!("refused: {refusal}\n"),
        }
    }
}

struct Args<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl<'a> Args<'a> {
    fn is_done(&self) -> bool {
        self.at == self.words.len()
    }

    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.at).copied()
    }

    fn next(&mut self) -> &'a str {
        self.at += 1;
        self.words[self.at - 1]
    }

    fn take(&mut self, word: &str) -> bool {
        let is_next = self.peek() == Some(word);
        self.at += usize::from(is_next);
        is_next
    }

    fn number(&mut self) -> i64 {
        self.next().parse().expect("a number")
    }

    fn optional_number(&mut self) -> Option<i64> {
        (!self.is_done()).then(|| self.number())
    }

    fn option(&mut self, name: &str) -> Option<i64> {
        let value = self.peek()?.strip_prefix(name)?.strip_prefix('=')?;
        self.at += 1;
        Some(value.parse().expect("a number"))
    }

    fn choice<T>(&mut self, name: &str, choices: &[(&str, T)]) -> Option<T>
    where
        T: Copy,
    {
        let value = self.peek()?.strip_prefix(name)?.strip_prefix('=')?;
        self.at += 1;
        Some(choices.iter().find(|(word, _)| *word == value).expect("a known choice").1)
    }

    fn bytes(&mut self) -> Bytes {
        bytes(self.next())
    }

    /// A key and, unless an option, an end of operations or nothing follows, a range end.
    fn range(&mut self) -> KeyRange {
        const NOT_AN_END: [&str; 7] = ["prev", "keys_only", "count_only", ";", "]", "else", "then"];
        let key = self.bytes();
        match self.peek() {
            Some(word) if !NOT_AN_END.contains(&word) && !word.contains('=') => {
                KeyRange::new(key, self.bytes())
            }
            _ => KeyRange::single(key),
        }
    }

    fn put(&mut self) -> PutRequest {
        let mut put = PutRequest { key: self.bytes(), value: self.bytes(), ..PutRequest::default() };
        loop {
            if let Some(lease) = self.option("lease") {
                put.lease = lease;
            } else if self.take("prev") {
                put.prev_kv = true;
            } else if self.take("ignore_value") {
                put.ignore_value = true;
            } else if self.take("ignore_lease") {
                put.ignore_lease = true;
            } else {
                return put;
            }
        }
    }

    fn del(&mut self) -> DeleteRangeRequest {
        DeleteRangeRequest { range: self.range(), prev_kv: self.take("prev") }
    }

    fn get(&mut self) -> RangeRequest {
        let orders = [("none", SortOrder::None), ("asc", SortOrder::Ascend), ("desc", SortOrder::Descend)];
        let targets = [
            ("key", SortTarget::Key),
            ("version", SortTarget::Version),
            ("create", SortTarget::Create),
            ("mod", SortTarget::Mod),
            ("value", SortTarget::Value),
        ];
        let mut request = RangeRequest { range: self.range(), ..RangeRequest::default() };
        loop {
            let numbers = [
                ("rev", &mut request.revision),
                ("limit", &mut request.limit),
                ("min_mod", &mut request.min_mod_revision),
                ("max_mod", &mut request.max_mod_revision),
                ("min_create", &mut request.min_create_revision),
                ("max_create", &mut request.max_create_revision),
            ];
            let start = self.at;
            for (name, field) in numbers {
                if let Some(value) = self.option(name) {
                    *field = value;
                }
            }
            if let Some(order) = self.choice("order", &orders) {
                request.sort_order = order;
            }
            if let Some(target) = self.choice("by", &targets) {
                request.sort_target = target;
            }
            request.keys_only |= self.take("keys_only");
            request.count_only |= self.take("count_only");
            if self.at == start {
                return request;
            }
        }
    }

    fn txn(&mut self) -> TxnRequest {
        let mut txn = TxnRequest::default();
        if self.take("if") {
            while self.peek().is_some_and(|word| word != "then" && word != "else" && word != "]") {
                txn.compares.push(compare(self.next()));
            }
        }
        if self.take("then") {
            txn.success = self.ops();
        }
        if self.take("else") {
            txn.failure = self.ops();
        }
        txn
    }

    fn ops(&mut self) -> Vec<TxnOp> {
        let mut ops = Vec::new();
        loop {
            ops.push(match self.next() {
                "get" => TxnOp::Range(self.get()),
                "put" => TxnOp::Put(self.put()),
                "del" => TxnOp::DeleteRange(self.del()),
                "txn" => {
                    assert!(self.take("["), "txn [ ... ]");
                    let txn = self.txn();
                    assert!(self.take("]"), "txn [ ... ]");
                    TxnOp::Txn(txn)
                }
                word => panic!("not an operation: {word}"),
            });
            if !self.take(";") {
                return ops;
            }
        }
    }

    fn command(&mut self, word: &str) -> Command {
        match word {
            "put" => Command::Put(self.put()),
            "del" => Command::DeleteRange(self.del()),
            "txn" => Command::Txn(self.txn()),
            "compact" => Command::Compact { revision: self.number() },
            "grant" => Command::LeaseGrant { id: self.number(), ttl: self.number() },
            "revoke" => Command::LeaseRevoke { id: self.number() },
            "renew" => {
                let mut ids = Vec::new();
                while let Some(id) = self.optional_number() {
                    ids.push(id);
                }
                Command::LeaseRenew { ids }
            }
            "expire" => Command::LeaseExpire { id: self.number() },
            "alarm" => Command::Alarm(self.alarm()),
            "bootstrap" => self.bootstrap(),
            "attributes" => {
                let (id, name) = (self.number() as u64, self.next().to_owned());
                let client_urls = self.words[self.at..].iter().map(|url| (*url).to_owned()).collect();
                self.at = self.words.len();
                Command::MemberAttributes { id, name, client_urls }
            }
            _ => panic!("not a command: {word}"),
        }
    }

    fn alarm(&mut self) -> AlarmRequest {
        let action = match self.next() {
            "get" => AlarmAction::Get,
            "activate" => AlarmAction::Activate,
            "deactivate" => AlarmAction::Deactivate,
            word => panic!("not an action: {word}"),
        };
        let member_id = self.number() as u64;
        let alarm = match self.next() {
            "none" => AlarmKind::None,
            "nospace" => AlarmKind::NoSpace,
            "corrupt" => AlarmKind::Corrupt,
            word => panic!("not an alarm: {word}"),
        };
        AlarmRequest { action, member_id, alarm }
    }

    fn bootstrap(&mut self) -> Command {
        let cluster_id = self.number() as u64;
        let mut members = Vec::new();
        while !self.is_done() {
            let word = self.next();
            let (id, is_learner) = match word.strip_suffix(",learner") {
                Some(id) => (id, true),
                None => (word, false),
            };
            members.push(Member { id: id.parse().unwrap(), is_learner, ..Member::default() });
        }
        Command::Bootstrap { cluster_id, members }
    }
}

fn bytes(word: &str) -> Bytes {
    if word == "\"\"" { Bytes::new() } else { Bytes::from(word.replace("\\0", "\0")) }
}

fn compare(word: &str) -> Compare {
    let (target, rest) = word.split_once('(').expect("target(key)");
    let (keys, rest) = rest.split_once(')').expect("target(key)");
    let range = match keys.split_once(',') {
        Some((key, end)) => KeyRange::new(bytes(key), bytes(end)),
        None => KeyRange::single(bytes(keys)),
    };
    let results = [
        ("!=", CompareResult::NotEqual),
        ("=", CompareResult::Equal),
        (">", CompareResult::Greater),
        ("<", CompareResult::Less),
    ];
    let (result, operand) = results
        .iter()
        .find_map(|(sign, result)| Some((*result, rest.strip_prefix(sign)?)))
        .expect("a comparison");
    let number = || operand.parse().expect("a number");
    let target = match target {
        "version" => CompareTarget::Version(number()),
        "create" => CompareTarget::CreateRevision(number()),
        "mod" => CompareTarget::ModRevision(number()),
        "lease" => CompareTarget::Lease(number()),
        "value" => CompareTarget::Value(bytes(operand)),
        _ => panic!("not a target: {target}"),
    };
    Compare { range, result, target }
}

fn kv_text(kv: &KeyValue) -> String {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', "\\0");
    let lease = if kv.lease == 0 { String::new() } else { format!(" lease {}", kv.lease) };
    format!(
        "{}={} create {} mod {} version {}{lease}",
        show(&kv.key),
        show(&kv.value),
        kv.create_revision,
        kv.mod_revision,
        kv.version
    )
}

fn events_text(events: &[Event]) -> String {
    let mut out = String::new();
    for event in events {
        let kind = if event.kind == EventKind::Put { "PUT" } else { "DELETE" };
        let prev = event.prev_kv.as_ref().map_or(String::new(), |kv| format!(" | prev {}", kv_text(kv)));
        writeln!(out, "{kind} {}{prev}", kv_text(&event.kv)).unwrap();
    }
    out
}

fn range_text(reply: &RangeReply, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut out = String::new();
    for kv in &reply.kvs {
        writeln!(out, "{pad}{}", kv_text(kv)).unwrap();
    }
    writeln!(out, "{pad}count {}{}", reply.count, if reply.more { ", more" } else { "" }).unwrap();
    out
}

fn delete_text(reply: &DeleteRangeReply, pad: &str) -> String {
    let prev: String = reply.prev_kvs.iter().map(|kv| format!("{pad}prev {}\n", kv_text(kv))).collect();
    format!("{pad}deleted {}\n{prev}", reply.deleted)
}

fn txn_text(reply: &TxnReply, indent: usize) -> String {
    let pad = " ".repeat(indent);
    let mut out = format!("{pad}{}\n", if reply.succeeded { "succeeded" } else { "failed" });
    let inner = " ".repeat(indent + 2);
    for response in &reply.responses {
        out += &match response {
            TxnOpReply::Range(range) => {
                format!("{inner}get, rev {}\n{}", range.current_revision, range_text(range, indent + 4))
            }
            TxnOpReply::Put { revision, reply } => {
                let prev =
                    reply.prev_kv.as_ref().map_or(String::new(), |kv| format!(" prev {}", kv_text(kv)));
                format!("{inner}put, rev {revision}{prev}\n")
            }
            TxnOpReply::DeleteRange { revision, reply } => {
                format!("{inner}del, rev {revision}\n{}", delete_text(reply, &" ".repeat(indent + 4)))
            }
            TxnOpReply::Txn { revision, reply } => {
                format!("{inner}txn, rev {revision}\n{}", txn_text(reply, indent + 4))
            }
        };
    }
    out
}

fn reply_text(reply: &Reply) -> String {
    match reply {
        Reply::Put(put) => put.prev_kv.as_ref().map_or(String::new(), |kv| format!("prev {}\n", kv_text(kv))),
        Reply::DeleteRange(delete) => delete_text(delete, ""),
        Reply::Txn(txn) => txn_text(txn, 0),
        Reply::Compact | Reply::LeaseRevoke | Reply::Bootstrap | Reply::MemberAttributes => String::new(),
        Reply::LeaseGrant { id, ttl } => format!("lease {id} for {ttl} s\n"),
        Reply::LeaseRenew(ttls) => format!("{ttls:?}\n"),
        Reply::LeaseExpire(went) => format!("{}\n", if *went { "expired" } else { "stays" }),
        Reply::Alarm(alarms) => alarms.iter().map(|a| format!("{} {:?}\n", a.member_id, a.alarm)).collect(),
    }
}
