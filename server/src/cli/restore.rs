//! `coffer snapshot restore`: makes a data directory of an image.
//!
//! ```text
//! checksum > every page, all trees > page file of the new owner > begun anew > log with the first entry > named
//! ```
//! Everything is made in `<data-dir>.restoring`, or in `restoring` inside an empty directory that is there, and gets its name
//! last: what has its name is whole. Whose it is, is computed as a member computes it that is started with the same flags, by the same code.

use super::args::{Arguments, Command, Flag, Kind};
use super::progress::Progress;
use super::status::{check, check_checksum, failed, hash, open_disk};
use super::{BAD_ARGUMENTS, FAILED, Failure, Outcome, one_word};
use crate::config::{self, Config, LogConfig, LogFormat, LogLevel, LogOutput, Start};
use crate::logging;
use crate::member::directory::{PAGE_FILE_NAME, WAL_DIR_NAME};
use crate::member::{first_members, identity};
use coffer_engine::Micros;
use coffer_engine::command::Member as MemberInfo;
use coffer_engine::disk::Disk;
use coffer_engine::mvcc::REVISION_MAX;
use coffer_engine::snapshot::Image;
use coffer_engine::store::{Store, StoreOptions};
use coffer_engine::wal::{HardState, NewBatch, WalOptions};
use coffer_raftlog::recovery::{self, Recovered, RecoveryOptions};
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

/// What is not finished has this name, or ends with it.
const UNFINISHED: &str = "restoring";
/// What the clock goes on by whenever it is asked: far, so that nothing waits for the time.
const CLOCK_STEP_US: Micros = 1_000_000;
/// What the first entry of a log, which is committed as it is made, leaves.
const FIRST_HARD_STATE: HardState = HardState { term: 1, vote: 0, commit: 1 };

pub(super) static COMMAND: Command = Command {
    usage: "coffer snapshot restore <filename> --data-dir {output dir} [options] [flags]",
    about: "Restores a member's snapshot to a data directory",
    flags: &[
        &DATA_DIR,
        &WAL_DIR,
        &INITIAL_CLUSTER,
        &INITIAL_CLUSTER_TOKEN,
        &PEER_URLS,
        &NAME,
        &SKIP_HASH_CHECK,
        &MAP_SIZE,
        &BUMP_REVISION,
        &MARK_COMPACTED,
    ],
    variables: None,
};

static DATA_DIR: Flag = Flag::new("data-dir", Kind::Text, "", "Path to the output data directory");
static WAL_DIR: Flag =
    Flag::new("wal-dir", Kind::Text, "", "Path to the WAL directory (use --data-dir if none given)");
static INITIAL_CLUSTER: Flag = Flag::new(
    "initial-cluster",
    Kind::Text,
    "default=http://localhost:2380",
    "Initial cluster configuration for restore bootstrap",
);
static INITIAL_CLUSTER_TOKEN: Flag = Flag::new(
    "initial-cluster-token",
    Kind::Text,
    "etcd-cluster",
    "Initial cluster token for the cluster during restore bootstrap",
);
static PEER_URLS: Flag = Flag::new(
    "initial-advertise-peer-urls",
    Kind::Text,
    "http://localhost:2380",
    "List of this member's peer URLs to advertise to the rest of the cluster",
);
static NAME: Flag = Flag::new("name", Kind::Text, "default", "Human-readable name for this member");
static SKIP_HASH_CHECK: Flag = Flag::new(
    "skip-hash-check",
    Kind::Bool,
    "false",
    "Ignore snapshot integrity hash value (the checksums within are checked all the same)",
);
static MAP_SIZE: Flag = Flag::new(
    "initial-memory-map-size",
    Kind::Unsigned,
    "0",
    "Has no effect: coffer maps a file as it grows",
);
static BUMP_REVISION: Flag =
    Flag::new("bump-revision", Kind::Unsigned, "0", "How much to increase the latest revision after restore");
static MARK_COMPACTED: Flag = Flag::new(
    "mark-compacted",
    Kind::Bool,
    "false",
    "Mark the latest revision after restore as the point of scheduled compaction (required if --bump-revision > 0, \
     disallowed otherwise)",
);

/// Runs it.
pub(super) fn run(arguments: &Arguments) -> Outcome {
    let file = Path::new(one_word(arguments, "snapshot restore requires exactly one argument")?);
    let bump = bump(arguments)?;
    let config = config_of(arguments)?;
    let owner = Owner::of(&config)?;
    let places = Places::of(&config)?;
    logging::init(&LogConfig {
        level: LogLevel::Info,
        format: LogFormat::Console,
        outputs: vec![LogOutput::Stderr],
    })
    .map_err(|text| Failure::new(FAILED, text))?;
    let say = |what: &str| {
        tracing::info!(
            path = %file.display(),
            "wal-dir" = %places.wal_dir.display(),
            "data-dir" = %places.data_dir.display(),
            "{what}"
        );
    };
    say("restoring snapshot");
    let mut disk = open_disk()?;
    let image = Image::open(disk.as_mut(), file).map_err(failed)?;
    check_bump(&image, bump)?;
    if !arguments.boolean("skip-hash-check") {
        if !image.has_checksum() {
            return Err(Failure::new(FAILED, "snapshot missing hash but --skip-hash-check=false"));
        }
        check_checksum(&image, file)?;
    }
    check(&image)?;
    let staging = Staging::begin(&places)?;
    make_page_file(disk.as_mut(), &image, &staging, &owner, bump)?;
    begin_log(disk.as_mut(), &staging, &config, owner)?;
    staging.finish(&places)?;
    say("restored snapshot");
    Ok(ExitCode::SUCCESS)
}

/// By how much the revision rises, if it does.
fn bump(arguments: &Arguments) -> Result<Option<i64>, Failure> {
    let by = arguments.unsigned("bump-revision");
    if (by > 0) != arguments.boolean("mark-compacted") {
        return Err(Failure::new(BAD_ARGUMENTS, "--mark-compacted required if --revision-bump > 0"));
    }
    let by = i64::try_from(by).map_err(|_| {
        Failure::new(BAD_ARGUMENTS, format!("--bump-revision {by} is more than revisions can be"))
    })?;
    Ok((by > 0).then_some(by))
}

/// That the revisions after the bump leave room for many more.
fn check_bump(image: &Image, bump: Option<i64>) -> Result<(), Failure> {
    let (before, by) = (image.head().standing.revision, bump.unwrap_or(0));
    if bump.is_none() || before.checked_add(by).is_some_and(|revision| revision <= REVISION_MAX) {
        return Ok(());
    }
    let text = format!(
        "--bump-revision {by}: the snapshot's revision is {before}, and a bump may lead to {REVISION_MAX} at most"
    );
    Err(Failure::new(BAD_ARGUMENTS, text))
}

/// What a member started with these flags would make of them.
fn config_of(arguments: &Arguments) -> Result<Config, Failure> {
    let names = ["name", "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls"];
    let mut flags: Vec<String> =
        names.iter().map(|name| format!("--{name}={}", arguments.text(name))).collect();
    for name in ["data-dir", "wal-dir"] {
        let given = arguments.text(name);
        flags.extend((!given.is_empty()).then(|| format!("--{name}={given}")));
    }
    match config::load(flags, Vec::new()) {
        Ok(Start::Run(config)) => Ok(*config),
        Ok(Start::Print(_)) => Err(Failure::new(FAILED, "nothing to restore")),
        Err(failure) => Err(Failure::new(FAILED, failure.text)),
    }
}

/// Whose the data will be.
struct Owner {
    cluster_id: u64,
    member_id: u64,
    members: Vec<MemberInfo>,
}

impl Owner {
    /// Who a member is that starts for the first time with these flags.
    fn of(config: &Config) -> Result<Owner, Failure> {
        let members = first_members(config).map_err(|text| Failure::new(FAILED, text))?;
        Ok(Owner {
            cluster_id: identity::cluster_id(members.iter().map(|member| member.id)),
            member_id: identity::member_id(&config.peer_urls(), &config.initial_cluster_token),
            members,
        })
    }

    fn mark(&self) -> [u8; 16] {
        recovery::owner(self.cluster_id, self.member_id)
    }
}

/// Where the data come to lie, as absolute paths.
struct Places {
    data_dir: PathBuf,
    wal_dir: PathBuf,
    /// Whether the log lies in the data directory.
    wal_inside: bool,
}

impl Places {
    fn of(config: &Config) -> Result<Places, Failure> {
        let refused = |text: String| Err(Failure::new(FAILED, text));
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        let data_dir = resolved(&config.data_dir)?;
        let wal_dir = config.wal_dir.as_deref().map(resolved).transpose()?;
        if let Some(wal_dir) = &wal_dir {
            // either is made and named as a whole, which takes that neither is a part of the other
            if wal_dir.starts_with(&data_dir) {
                let text = "--wal-dir inside --data-dir: leave it out, the log has a place of its own there";
                return refused(text.to_owned());
            }
            if data_dir.starts_with(wal_dir) {
                return refused("--data-dir inside --wal-dir: give each a directory of its own".to_owned());
            }
        }
        if !is_free(&data_dir) {
            return refused(format!("data-dir {} not empty or could not be read", quoted(&config.data_dir)));
        }
        match (wal_dir, &config.wal_dir) {
            (Some(wal_dir), Some(given)) if wal_dir.exists() => {
                refused(format!("wal-dir {} exists", quoted(given)))
            }
            (Some(wal_dir), _) => Ok(Places { data_dir, wal_dir, wal_inside: false }),
            (None, _) => Ok(Places { wal_dir: data_dir.join(WAL_DIR_NAME), data_dir, wal_inside: true }),
        }
    }
}

/// The one absolute path of a directory that may not be there yet: without slashes at its end, `..` and links.
fn resolved(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |error| io_failure("find", path, &error);
    let absolute: PathBuf = std::path::absolute(path).map_err(failed)?.components().collect();
    let there = absolute.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
    let missing = absolute.strip_prefix(there).unwrap_or(Path::new(""));
    if missing.components().any(|part| part == Component::ParentDir) {
        return Err(failed(std::io::ErrorKind::NotFound.into()));
    }
    let there = there.canonicalize().map_err(failed)?;
    // joining nothing would put a slash there
    Ok(there.components().chain(missing.components()).collect())
}

/// Whether nothing is there, or an empty directory.
fn is_free(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut names) => names.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    }
}

fn io_failure(operation: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(FAILED, format!("{operation} {}: {error}", path.display()))
}

/// What is in the making; removed unless it gets its name.
struct Staging {
    data_dir: PathBuf,
    wal_dir: PathBuf,
}

impl Staging {
    fn begin(places: &Places) -> Result<Staging, Failure> {
        // what is there may be a file system of its own: nothing can be renamed into its place, only within it
        let data_dir = if places.data_dir.exists() {
            places.data_dir.join(UNFINISHED)
        } else {
            unfinished(&places.data_dir)
        };
        make(&data_dir)?;
        let mut staging = Staging { wal_dir: data_dir.join(WAL_DIR_NAME), data_dir };
        if !places.wal_inside {
            let wal_dir = unfinished(&places.wal_dir);
            make(&wal_dir)?;
            staging.wal_dir = wal_dir;
        }
        Ok(staging)
    }

    /// Gives everything its name, the page file before the log: with it alone a member starts as it should, beginning the
    /// log that it finds missing.
    fn finish(self, places: &Places) -> Result<(), Failure> {
        sync(&self.data_dir)?;
        if places.data_dir.exists() {
            rename(&self.data_dir.join(PAGE_FILE_NAME), &places.data_dir.join(PAGE_FILE_NAME))?;
        } else {
            rename(&self.data_dir, &places.data_dir)?;
        }
        if self.wal_dir.exists() {
            rename(&self.wal_dir, &places.wal_dir)?;
        }
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // What has its name is not here any more.
        let _ = std::fs::remove_dir_all(&self.data_dir);
        let _ = std::fs::remove_dir_all(&self.wal_dir);
    }
}

fn sync(directory: &Path) -> Result<(), Failure> {
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io_failure("sync", directory, &error))
}

fn rename(from: &Path, to: &Path) -> Result<(), Failure> {
    std::fs::rename(from, to).map_err(|error| io_failure("name", to, &error))?;
    sync(parent(to))
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// The directory in which a path's name stands.
fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Makes a directory that must not be there, and those above it, whose names are made durable; its own is not its last.
fn make(path: &Path) -> Result<(), Failure> {
    let above = parent(path);
    let missing = above.ancestors().position(Path::is_dir).unwrap_or(0);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(above)
        .map_err(|error| io_failure("make", above, &error))?;
    above.ancestors().skip(1).take(missing).try_for_each(sync)?;
    DirBuilder::new().mode(0o700).create(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            FAILED,
            format!(
                "{} exists: another restore is at work, or one was killed; then remove it",
                path.display()
            ),
        ),
        _ => io_failure("make", path, &error),
    })
}

/// Writes the page file, lets its state begin anew, and makes sure that it still has every version that the image has.
fn make_page_file(
    disk: &mut dyn Disk,
    image: &Image,
    staging: &Staging,
    owner: &Owner,
    bump: Option<i64>,
) -> Result<(), Failure> {
    let path = staging.data_dir.join(PAGE_FILE_NAME);
    let owner = owner.mark();
    let progress = Progress::begin("restoring");
    let mut tell = |done, total| progress.set(done, total);
    image.write_page_file(&path, owner, &mut tell).map_err(failed)?;
    drop(progress);
    let (mut store, _) = Store::open(disk, StoreOptions::new(path, owner), 0).map_err(failed)?;
    let wanted = hash(image, image.root()).map_err(failed)?;
    let pinned = store.reader().pin_published();
    let restored = hash(&pinned, pinned.root()).map_err(failed)?;
    if restored != wanted {
        let text = format!("the restored store's hash is {restored:?}, the snapshot's {wanted:?}");
        return Err(Failure::new(FAILED, text));
    }
    drop(pinned);
    let before = store.reader().position().revision;
    let begun = store.begin_anew(bump).map_err(|fault| failed(*fault))?;
    // looked at before, so that nothing is written for it
    begun.map_err(|refusal| Failure::new(FAILED, format!("--bump-revision: {refusal}")))?;
    if let Some(by) = bump {
        let revision = before + by;
        tracing::info!(
            "latest-revision" = before,
            "bump-amount" = by,
            "new-latest-revision" = revision,
            "bumping latest revision"
        );
        tracing::info!(revision, "marking revision compacted");
    }
    make_durable(disk, &mut store).map_err(failed)
}

/// Runs checkpoints until all that is published is durable.
fn make_durable(disk: &mut dyn Disk, store: &mut Store) -> Result<(), coffer_engine::error::Fault> {
    let wanted = store.reader().pin_published().root().tx;
    let mut completions = Vec::new();
    let mut clock = Clock::default();
    store.request_checkpoint();
    while store.durable().tx < wanted || store.is_busy() {
        let now = clock.now();
        let next = store.step(disk, now, 0)?;
        disk.poll(&mut completions);
        if completions.is_empty() && !next.at_once {
            disk.wait(Some(10_000));
            disk.poll(&mut completions);
        }
        for completion in completions.drain(..) {
            store.complete(completion, now);
        }
    }
    Ok(())
}

/// Begins the log: its first entry names the new cluster.
fn begin_log(disk: &mut dyn Disk, staging: &Staging, config: &Config, owner: Owner) -> Result<(), Failure> {
    let salt = RandomState::new().hash_one(owner.member_id);
    let options = RecoveryOptions {
        wal: WalOptions {
            segment_bytes_min: config.wal_segment_bytes_min,
            segment_bytes_max: config.wal_segment_bytes_max,
            ..WalOptions::new(staging.wal_dir.clone(), owner.mark(), salt)
        },
        pages: StoreOptions::new(staging.data_dir.join(PAGE_FILE_NAME), owner.mark()),
        cluster_id: owner.cluster_id,
        member_id: owner.member_id,
        bootstrap: owner.members,
        keep_bytes: 0,
    };
    let recovered = recovery::recover(disk, &options, &mut Clock::default().tell());
    let Recovered { mut wal, store, .. } =
        recovered.map_err(|error| Failure::new(FAILED, error.to_string()))?;
    // a log that names the page file's root is refused without it
    let durable = store.durable();
    wal.set_checkpoint(durable.tx, durable.applied);
    let sequence = wal.append(NewBatch { hard_state: FIRST_HARD_STATE, entries: Vec::new() });
    let mut clock = Clock::default();
    let mut completions = Vec::new();
    while wal.durable() < sequence {
        wal.step(disk, clock.now()).map_err(failed)?;
        if let Some(full) = wal.no_room() {
            return Err(failed(full));
        }
        disk.wait(Some(10_000));
        disk.poll(&mut completions);
        for completion in completions.drain(..) {
            // nothing but the log has anything under way
            let _ = wal.complete(completion, clock.now());
        }
    }
    Ok(())
}

/// Time for state machines that are stepped until they are done: it only has to pass.
#[derive(Default)]
struct Clock {
    now: Micros,
}

impl Clock {
    fn now(&mut self) -> Micros {
        self.now += CLOCK_STEP_US;
        self.now
    }

    fn tell(mut self) -> impl FnMut() -> Micros {
        move || self.now()
    }
}
