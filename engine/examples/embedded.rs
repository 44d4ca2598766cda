//! The store inside a program: `cargo run -p coffer-engine --example embedded`.
//!
//! It makes a database in a directory of its own, does one of each thing and says what came of it.

use coffer_engine::command::{
    Compare, CompareResult, CompareTarget, PutRequest, RangeRequest, TxnOp, TxnRequest,
};
use coffer_engine::embedded::{Db, Error, Options, Watch};
use coffer_engine::error::Refusal;
use coffer_engine::mvcc::{EventKind, KeyRange};

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let dir = std::env::temp_dir().join(format!("coffer-embedded-{}", std::process::id()));
    let db = Db::open(Options::new(&dir))?;
    println!("opened {}, written through {}", dir.display(), db.io());
    let done = first_life(&db).and_then(|()| second_life(&dir, db));
    std::fs::remove_dir_all(&dir)?;
    done
}

fn first_life(db: &Db) -> Outcome {
    let shelf = KeyRange::new("fruit/", "fruit0"); // every key that begins with "fruit/"
    let watch = db.watch(shelf.clone(), 0)?;

    let put = db.put(put("fruit/apple", "red"))?;
    println!("put fruit/apple: durable, revision {}", put.revision);
    db.put(PutRequest { prev_kv: true, ..self::put("fruit/apple", "green") })?;

    move_to(db, "fruit/apple", "fruit/pear")?;

    println!("now under fruit/:");
    for kv in db.range(&RangeRequest { range: shelf.clone(), ..RangeRequest::default() })?.kvs {
        println!("  {:?} = {:?}, made at revision {}", kv.key, kv.value, kv.create_revision);
    }
    let before =
        db.range(&RangeRequest { range: shelf, revision: put.revision, ..RangeRequest::default() })?;
    println!("at revision {}: {:?} = {:?}", put.revision, before.kvs[0].key, before.kvs[0].value);

    print_events(watch, 4)?;
    leases(db)?;

    db.compact(db.position().revision)?;
    match db.range(&RangeRequest { revision: 1, ..RangeRequest::default() }) {
        Err(Error::Refused(Refusal::Compacted)) => println!("revision 1 is compacted"),
        other => println!("revision 1: {other:?}"),
    }
    Ok(())
}

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

/// Moves a value from one key to another in one step, if the other is not there yet.
fn move_to(db: &Db, from: &'static str, to: &'static str) -> Outcome {
    let Some(kv) = db.get(from)? else { return Ok(()) };
    let absent = |key| Compare {
        range: KeyRange::single(key),
        result: CompareResult::Equal,
        target: CompareTarget::CreateRevision(0),
    };
    let unchanged = Compare {
        range: KeyRange::single(from),
        result: CompareResult::Equal,
        target: CompareTarget::ModRevision(kv.mod_revision),
    };
    let done = db.txn(TxnRequest {
        compares: vec![absent(to), unchanged],
        success: vec![
            TxnOp::Put(PutRequest { key: to.into(), value: kv.value.clone(), ..PutRequest::default() }),
            TxnOp::DeleteRange(coffer_engine::command::DeleteRangeRequest {
                range: KeyRange::single(from),
                prev_kv: false,
            }),
        ],
        failure: Vec::new(),
    })?;
    println!("moved {from} to {to}: {}, revision {}", done.reply.succeeded, done.revision);
    Ok(())
}

/// Prints so many events of a watch that was begun before they happened.
fn print_events(mut watch: Watch, wanted: usize) -> Outcome {
    let mut seen = 0;
    while seen < wanted
        && let Some(events) = watch.next().transpose()?
    {
        for event in &events.events {
            let what = if event.kind == EventKind::Put { "put" } else { "delete" };
            println!("watched revision {}: {what} {:?}", event.kv.mod_revision, event.kv.key);
        }
        seen += events.events.len();
    }
    Ok(())
}

fn leases(db: &Db) -> Outcome {
    let lease = db.lease_grant(0, 1)?.reply;
    let attached = db.put(PutRequest { lease: lease.id, ..put("session", "open") })?;
    println!("lease {:x} of {} s with a key attached", lease.id, db.lease_keep_alive(lease.id)?.reply);
    let mut watch = db.watch(KeyRange::single("session"), attached.revision + 1)?;
    if let Some(events) = watch.next().transpose()? {
        let deleted = events.events.iter().any(|event| event.kind == EventKind::Delete);
        println!("nobody renewed it: its key is deleted at revision {}: {deleted}", events.revision);
    }
    Ok(())
}

fn second_life(dir: &std::path::Path, db: Db) -> Outcome {
    let hash = db.hash_kv(0)?;
    match Db::open(Options::new(dir)) {
        Err(fault) => println!("a second opening is refused: {fault}"),
        Ok(_) => println!("a second opening was not refused"),
    }
    db.close()?;
    let db = Db::open(Options::new(dir))?;
    println!(
        "opened again at revision {}, the same hash: {}",
        db.position().revision,
        db.hash_kv(0)? == hash
    );

    let to = dir.join("copy");
    let copied = db.snapshot(&to)?;
    let copy = Db::open(Options::new(&to))?;
    println!("a copy at revision {copied}, the same hash: {}", copy.hash_kv(0)? == hash);
    Ok(())
}
