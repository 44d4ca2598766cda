//! What a simulated disk consists of: names, files, operations under way, and the faults in store.

use super::content::Block;
use super::inode::{Change, Inode, apply_torn};
use super::rng::Rng;
use super::{Failure, SECTOR_BYTES};
use crate::disk::map::beyond_the_end;
use crate::disk::{BLOCK_BYTES, Completion, Done, FileId, IoBuf, Op, Token};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A killed process's write lands at most this many operations later.
const LATE_OPS_MAX: u64 = 80;

pub(super) type InodeId = u64;

/// An open file.
#[derive(Clone, Copy, Debug)]
struct OpenFile {
    inode: InodeId,
    /// Through the page cache: what a killed process writes to it ends with the process.
    cached: bool,
}

/// An operation under way.
#[derive(Debug)]
struct Flight {
    token: Token,
    number: u64,
    due: u64,
    op: Op,
    failure: Option<Failure>,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum NameChange {
    Set { path: PathBuf, inode: InodeId },
    Move { from: PathBuf, to: PathBuf, inode: InodeId },
    Unset { path: PathBuf },
}

/// A write of a killed process that is still on its way.
#[derive(Clone, Debug)]
struct Late {
    at_op: u64,
    inode: InodeId,
    change: Change,
}

/// The disk.
#[derive(Debug)]
pub(super) struct World {
    rng: Rng,
    now: u64,
    latency: (u64, u64),
    capacity: Option<u64>,
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: InodeId,
    names: BTreeMap<PathBuf, InodeId>,
    durable_names: BTreeMap<PathBuf, InodeId>,
    name_changes: Vec<NameChange>,
    open: Vec<Option<OpenFile>>,
    flights: Vec<Flight>,
    /// Half done for ever, after the machine stopped.
    frozen: Vec<Flight>,
    late: Vec<Late>,
    ops: u64,
    next_token: u64,
    failures: BTreeMap<u64, Failure>,
    stop_at: Option<u64>,
}

impl Clone for World {
    fn clone(&self) -> World {
        World {
            rng: self.rng.clone(),
            now: self.now,
            latency: self.latency,
            capacity: self.capacity,
            inodes: self.inodes.clone(),
            next_inode: self.next_inode,
            names: self.names.clone(),
            durable_names: self.durable_names.clone(),
            name_changes: self.name_changes.clone(),
            open: self.open.clone(),
            flights: self.flights.iter().map(Flight::copy).collect(),
            frozen: self.frozen.iter().map(Flight::copy).collect(),
            late: self.late.clone(),
            ops: self.ops,
            next_token: self.next_token,
            failures: self.failures.clone(),
            stop_at: self.stop_at,
        }
    }
}

impl Flight {
    fn copy(&self) -> Flight {
        Flight {
            token: self.token,
            number: self.number,
            due: self.due,
            op: copy_op(&self.op),
            failure: self.failure,
        }
    }
}

fn copy_buf(buf: &IoBuf) -> IoBuf {
    let mut copy = IoBuf::zeroed(buf.len());
    copy.as_mut_slice().copy_from_slice(buf.as_slice());
    copy
}

fn copy_op(op: &Op) -> Op {
    match op {
        Op::CreateDir { dir } => Op::CreateDir { dir: dir.clone() },
        Op::List { dir } => Op::List { dir: dir.clone() },
        Op::SyncDir { dir } => Op::SyncDir { dir: dir.clone() },
        Op::Open { path, create, cached } => {
            Op::Open { path: path.clone(), create: *create, cached: *cached }
        }
        Op::Close { file } => Op::Close { file: *file },
        Op::Read { file, offset, buf } => Op::Read { file: *file, offset: *offset, buf: copy_buf(buf) },
        Op::Write { file, offset, buf } => Op::Write { file: *file, offset: *offset, buf: copy_buf(buf) },
        Op::WriteDurable { file, offset, buf } => {
            Op::WriteDurable { file: *file, offset: *offset, buf: copy_buf(buf) }
        }
        Op::WriteBack { file, offset, bytes } => {
            Op::WriteBack { file: *file, offset: *offset, bytes: *bytes }
        }
        Op::Sync { file } => Op::Sync { file: *file },
        Op::DropCache { file } => Op::DropCache { file: *file },
        Op::Allocate { file, bytes } => Op::Allocate { file: *file, bytes: *bytes },
        Op::Truncate { file, bytes } => Op::Truncate { file: *file, bytes: *bytes },
        Op::Rename { from, to } => Op::Rename { from: from.clone(), to: to.clone() },
        Op::Remove { path } => Op::Remove { path: path.clone() },
    }
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World {
            rng: Rng::new(seed),
            now: 0,
            latency: (50, 300),
            capacity: None,
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            open: Vec::new(),
            flights: Vec::new(),
            frozen: Vec::new(),
            late: Vec::new(),
            ops: 0,
            next_token: 0,
            failures: BTreeMap::new(),
            stop_at: None,
        }
    }

    pub(super) fn reseed(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }

    pub(super) fn set_now(&mut self, now_us: u64) {
        self.now = self.now.max(now_us);
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn set_latency(&mut self, min_us: u64, max_us: u64) {
        self.latency = (min_us, max_us);
    }

    pub(super) fn set_capacity(&mut self, bytes: Option<u64>) {
        self.capacity = bytes;
    }

    pub(super) fn fail_op(&mut self, number: u64, failure: Failure) {
        self.failures.insert(number, failure);
    }

    pub(super) fn stop_at_op(&mut self, number: u64) {
        self.stop_at = Some(number);
    }

    pub(super) fn ops(&self) -> u64 {
        self.ops
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.flights.iter().map(|flight| flight.due).min()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn durable_writes_under_way(&self) -> usize {
        let all = self.flights.iter().chain(&self.frozen);
        all.filter(|flight| matches!(flight.op, Op::WriteDurable { .. })).count()
    }

    pub(super) fn pending_bytes(&self) -> usize {
        self.inodes.values().map(Inode::pending_bytes).sum()
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.names.keys().cloned().collect()
    }

    pub(super) fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        Some(self.inodes.get(self.names.get(path)?)?.visible.to_vec())
    }

    pub(super) fn write_file(&mut self, path: &Path, bytes: Vec<u8>) {
        let inode = self.new_inode(Inode::durable(&bytes));
        self.names.insert(path.to_path_buf(), inode);
        self.durable_names.insert(path.to_path_buf(), inode);
    }

    pub(super) fn remove_file(&mut self, path: &Path) {
        self.names.remove(path);
        self.durable_names.remove(path);
    }

    pub(super) fn damage(&mut self, path: &Path, place: Range<usize>, f: impl Fn(&mut [u8])) {
        let inode = self.names.get(path).expect("the file to damage is there");
        self.inodes.get_mut(inode).expect("a name leads to a file").damage(place, f);
    }

    pub(super) fn used(&self) -> u64 {
        let linked = |id: &InodeId| {
            self.names.values().any(|named| named == id)
                || self.open.iter().flatten().any(|open| open.inode == *id)
        };
        self.inodes.iter().filter(|(id, _)| linked(id)).map(|(_, inode)| inode.visible.len() as u64).sum()
    }

    /// The file of a name.
    pub(super) fn named(&self, path: &Path) -> io::Result<InodeId> {
        self.names.get(path).copied().ok_or_else(|| errno(libc::ENOENT))
    }

    /// A page as a map shows it.
    pub(super) fn mapped_page(&self, inode: InodeId, page: u32) -> io::Result<Arc<Block>> {
        let inode = self.inodes.get(&inode).ok_or_else(|| errno(libc::ENOENT))?;
        inode.readable(u64::from(page) * BLOCK_BYTES as u64, BLOCK_BYTES as u64)?;
        inode.visible.block(page as usize).ok_or_else(beyond_the_end)
    }

    pub(super) fn refuse_reads(&mut self, path: &Path, offset: u64, bytes: u64) {
        let inode = self.names.get(path).expect("the file is there");
        let inode = self.inodes.get_mut(inode).expect("a name leads to a file");
        inode.unreadable.push(offset..offset + bytes);
    }

    fn new_inode(&mut self, inode: Inode) -> InodeId {
        let id = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        id
    }

    pub(super) fn submit(&mut self, op: Op) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        let number = self.ops;
        self.ops += 1;
        let due = self.now + self.rng.between(self.latency.0, self.latency.1);
        let failure = self.failures.remove(&number);
        self.flights.push(Flight { token, number, due, op, failure });
        self.land_late();
        token
    }

    pub(super) fn wait(&mut self, timeout_us: Option<u64>) {
        let timeout = timeout_us.map(|us| self.now.saturating_add(us));
        let target = match (self.next_due(), timeout) {
            (Some(due), Some(end)) => due.min(end),
            (Some(time), None) | (None, Some(time)) => time,
            (None, None) => return,
        };
        self.set_now(target);
    }

    pub(super) fn poll(&mut self, out: &mut Vec<Completion>) {
        if let Some(stop) = self.stop_at
            && self.ops > stop
        {
            self.poll_stopped(stop, out);
            return;
        }
        let now = self.now;
        let mut due: Vec<Flight> = Vec::new();
        let mut place = 0;
        while place < self.flights.len() {
            if self.flights[place].due <= now {
                due.push(self.flights.swap_remove(place));
            } else {
                place += 1;
            }
        }
        due.sort_by_key(|flight| (flight.due, flight.token));
        for flight in due {
            let token = flight.token;
            let (buf, result) = self.run(flight);
            out.push(Completion { token, buf, result });
        }
    }

    /// The caller sees errors; what was under way when the machine stopped stays half done.
    fn poll_stopped(&mut self, stop: u64, out: &mut Vec<Completion>) {
        for flight in std::mem::take(&mut self.flights) {
            if flight.number <= stop {
                self.frozen.push(flight.copy());
            }
            let buf = take_buf(flight.op);
            out.push(Completion { token: flight.token, buf, result: Err(errno(libc::EIO)) });
        }
    }

    fn run(&mut self, flight: Flight) -> (Option<IoBuf>, io::Result<Done>) {
        if let Some(failure) = flight.failure {
            return self.run_failing(flight.op, failure);
        }
        match flight.op {
            Op::CreateDir { .. } => (None, Ok(Done::Unit)),
            Op::List { dir } => (None, Ok(Done::Names(self.list(&dir)))),
            Op::SyncDir { dir } => {
                self.sync_dir(&dir);
                (None, Ok(Done::Unit))
            }
            Op::Open { path, create, cached } => (None, self.open_file(path, create, cached)),
            Op::Close { file } => (None, self.close(file)),
            Op::Read { file, offset, mut buf } => {
                let result = self.read(file, offset, &mut buf);
                (Some(buf), result)
            }
            Op::Write { file, offset, buf } => {
                let result = self.write(file, offset, &buf, false);
                (Some(buf), result)
            }
            Op::WriteDurable { file, offset, buf } => {
                let result = self.write(file, offset, &buf, true);
                (Some(buf), result)
            }
            Op::WriteBack { file, .. } => (None, self.inode(file).map(|_| Done::Unit)),
            Op::Sync { file } => (None, self.inode(file).map(Inode::sync).map(|()| Done::Unit)),
            Op::DropCache { file } => (None, self.inode(file).map(Inode::drop_cache).map(|()| Done::Unit)),
            Op::Allocate { file, bytes } => (None, self.allocate(file, bytes)),
            Op::Truncate { file, bytes } => {
                let change = Change::Length(bytes as usize);
                (None, self.inode(file).map(|inode| inode.change(change)).map(|()| Done::Unit))
            }
            Op::Rename { from, to } => (None, self.rename(from, to)),
            Op::Remove { path } => (None, self.remove(path)),
        }
    }

    /// An operation that fails may still have done some of its work.
    fn run_failing(&mut self, op: Op, failure: Failure) -> (Option<IoBuf>, io::Result<Done>) {
        let error = match failure {
            Failure::Errno(number) => errno(number),
            Failure::Short => io::Error::new(io::ErrorKind::WriteZero, "short write"),
            Failure::Cancelled => errno(libc::ECANCELED),
        };
        match op {
            Op::Write { file, offset, buf } | Op::WriteDurable { file, offset, buf } => {
                let whole = Change::Write { offset: offset as usize, bytes: buf.as_slice().to_vec() };
                let mut rng = self.rng.clone();
                if let Ok(inode) = self.inode(file) {
                    match failure {
                        Failure::Cancelled => inode.change(whole),
                        Failure::Short => {
                            let half = buf.len() / 2 / SECTOR_BYTES * SECTOR_BYTES;
                            let bytes = buf.as_slice()[..half].to_vec();
                            inode.change(Change::Write { offset: offset as usize, bytes });
                        }
                        // written to the cache, lost on its way, and clean from then on
                        Failure::Errno(libc::EIO) if rng.once_in(2) => inode.lie(whole),
                        Failure::Errno(_) => {
                            let mut torn = inode.visible.clone();
                            apply_torn(&mut torn, &whole, &mut rng);
                            let bytes = torn.range(offset as usize, buf.len());
                            inode.change(Change::Write { offset: offset as usize, bytes });
                        }
                    }
                }
                self.rng = rng;
                (Some(buf), Err(error))
            }
            Op::Sync { file } => {
                let mut rng = self.rng.clone();
                if let Ok(inode) = self.inode(file) {
                    inode.sync_failed(&mut rng);
                }
                self.rng = rng;
                (None, Err(error))
            }
            other => (take_buf(other), Err(error)),
        }
    }

    fn inode(&mut self, file: FileId) -> io::Result<&mut Inode> {
        let id = self.inode_id(file);
        id.and_then(|id| self.inodes.get_mut(&id)).ok_or_else(|| errno(libc::EBADF))
    }

    fn inode_id(&self, file: FileId) -> Option<InodeId> {
        self.open.get(file.0 as usize).copied().flatten().map(|open| open.inode)
    }

    fn list(&self, dir: &Path) -> Vec<PathBuf> {
        let here = self.names.keys().filter(|path| path.parent() == Some(dir));
        here.filter_map(|path| path.file_name()).map(PathBuf::from).collect()
    }

    fn open_file(&mut self, path: PathBuf, create: bool, cached: bool) -> io::Result<Done> {
        let inode = match (self.names.get(&path).copied(), create) {
            (Some(_), true) => return Err(errno(libc::EEXIST)),
            (None, false) => return Err(errno(libc::ENOENT)),
            (Some(inode), false) => inode,
            (None, true) => {
                let inode = self.new_inode(Inode::default());
                self.names.insert(path.clone(), inode);
                self.name_changes.push(NameChange::Set { path, inode });
                inode
            }
        };
        let bytes = self.inodes.get(&inode).map_or(0, |inode| inode.visible.len() as u64);
        let slot = self.open.iter().position(Option::is_none).unwrap_or(self.open.len());
        if slot == self.open.len() {
            self.open.push(None);
        }
        self.open[slot] = Some(OpenFile { inode, cached });
        Ok(Done::Opened(FileId(slot as u32), bytes))
    }

    fn close(&mut self, file: FileId) -> io::Result<Done> {
        let slot = self.open.get_mut(file.0 as usize).ok_or_else(|| errno(libc::EBADF))?;
        slot.take().map(|_| Done::Unit).ok_or_else(|| errno(libc::EBADF))
    }

    fn read(&mut self, file: FileId, offset: u64, buf: &mut IoBuf) -> io::Result<Done> {
        let inode = self.inode(file)?;
        inode.readable(offset, buf.len() as u64)?;
        Ok(Done::Read(inode.visible.read(offset as usize, buf.as_mut_slice())))
    }

    fn write(&mut self, file: FileId, offset: u64, buf: &IoBuf, durable: bool) -> io::Result<Done> {
        let end = offset + buf.len() as u64;
        let grown = end.saturating_sub(self.inode(file)?.visible.len() as u64);
        self.room_for(grown)?;
        let change = Change::Write { offset: offset as usize, bytes: buf.as_slice().to_vec() };
        let inode = self.inode(file)?;
        if durable {
            inode.change_durably(change);
        } else {
            inode.change(change);
        }
        Ok(Done::Unit)
    }

    fn allocate(&mut self, file: FileId, bytes: u64) -> io::Result<Done> {
        let here = self.inode(file)?.visible.len() as u64;
        if bytes > here {
            self.room_for(bytes - here)?;
            self.inode(file)?.change(Change::Length(bytes as usize));
        }
        Ok(Done::Unit)
    }

    fn room_for(&self, grown: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if grown > 0 && self.used() + grown > capacity => Err(errno(libc::ENOSPC)),
            _ => Ok(()),
        }
    }

    fn rename(&mut self, from: PathBuf, to: PathBuf) -> io::Result<Done> {
        let inode = self.names.remove(&from).ok_or_else(|| errno(libc::ENOENT))?;
        self.names.insert(to.clone(), inode);
        self.name_changes.push(NameChange::Move { from, to, inode });
        Ok(Done::Unit)
    }

    fn remove(&mut self, path: PathBuf) -> io::Result<Done> {
        self.names.remove(&path).ok_or_else(|| errno(libc::ENOENT))?;
        self.name_changes.push(NameChange::Unset { path });
        Ok(Done::Unit)
    }

    fn sync_dir(&mut self, dir: &Path) {
        let changes = std::mem::take(&mut self.name_changes);
        let (here, elsewhere) = changes.into_iter().partition(|change| change.path().parent() == Some(dir));
        self.name_changes = elsewhere;
        let here: Vec<NameChange> = here;
        for change in here {
            change.apply(&mut self.durable_names);
        }
        self.forget_unreachable();
    }

    fn take_unfinished(&mut self) -> Vec<Flight> {
        let mut unfinished = std::mem::take(&mut self.frozen);
        unfinished.append(&mut self.flights);
        unfinished
    }

    /// What a write under way would change.
    fn change_of(&self, op: &Op) -> Option<(InodeId, Change)> {
        let (file, change) = match op {
            Op::Write { file, offset, buf } | Op::WriteDurable { file, offset, buf } => {
                (file, Change::Write { offset: *offset as usize, bytes: buf.as_slice().to_vec() })
            }
            Op::Allocate { file, bytes } | Op::Truncate { file, bytes } => {
                (file, Change::Length(*bytes as usize))
            }
            _ => return None,
        };
        Some((self.inode_id(*file)?, change))
    }

    /// Whether a write goes through the page cache.
    fn is_cached(&self, op: &Op) -> bool {
        let (Op::Write { file, .. } | Op::WriteDurable { file, .. }) = op else { return false };
        self.open.get(file.0 as usize).copied().flatten().is_some_and(|open| open.cached)
    }

    fn name_change_of(&self, op: &Op) -> Option<NameChange> {
        match op {
            Op::Rename { from, to } => {
                let inode = *self.names.get(from)?;
                Some(NameChange::Move { from: from.clone(), to: to.clone(), inode })
            }
            Op::Remove { path } => Some(NameChange::Unset { path: path.clone() }),
            _ => None,
        }
    }

    pub(super) fn power_cut(&mut self) {
        let mut in_flight: BTreeMap<InodeId, Vec<Change>> = BTreeMap::new();
        for flight in &self.take_unfinished() {
            if let Some((inode, change)) = self.change_of(&flight.op) {
                in_flight.entry(inode).or_default().push(change);
            } else if let Some(change) = self.name_change_of(&flight.op) {
                self.name_changes.push(change);
            } else if let Op::Open { path, create: true, .. } = &flight.op
                && !self.names.contains_key(path)
            {
                let inode = self.new_inode(Inode::default());
                self.name_changes.push(NameChange::Set { path: path.clone(), inode });
            }
        }
        for late in std::mem::take(&mut self.late) {
            in_flight.entry(late.inode).or_default().push(late.change);
        }
        self.cut_names();
        for (id, inode) in &mut self.inodes {
            inode.power_cut(in_flight.remove(id).unwrap_or_default(), &mut self.rng);
        }
        self.restart();
    }

    /// Of the changes of names, a first part or any part is kept.
    fn cut_names(&mut self) {
        let changes = std::mem::take(&mut self.name_changes);
        let in_order = self.rng.once_in(2);
        let kept = self.rng.below(changes.len() as u64 + 1) as usize;
        for (place, change) in changes.into_iter().enumerate() {
            let keep = if in_order { place < kept } else { self.rng.once_in(2) };
            if keep {
                change.apply(&mut self.durable_names);
            }
        }
        self.names = self.durable_names.clone();
    }

    pub(super) fn kill(&mut self) {
        for flight in self.take_unfinished() {
            if let Some((id, change)) = self.change_of(&flight.op) {
                let cached = self.is_cached(&flight.op);
                // a call of the process itself ends with it; only a write that the device has may come later
                let may_be_late = matches!(change, Change::Write { .. }) && !cached;
                match self.rng.below(4) {
                    0 => {}
                    1 if may_be_late => {
                        let at_op = self.ops + self.rng.between(1, LATE_OPS_MAX);
                        self.late.push(Late { at_op, inode: id, change });
                    }
                    1 | 2 => {
                        if let Some(inode) = self.inodes.get_mut(&id) {
                            inode.change(change);
                        }
                    }
                    _ => self.change_partly(id, change),
                }
            } else if let Some(change) = self.name_change_of(&flight.op)
                && self.rng.once_in(2)
            {
                change.apply(&mut self.names);
                self.name_changes.push(change);
            }
        }
        self.restart();
    }

    fn change_partly(&mut self, id: InodeId, change: Change) {
        let Change::Write { offset, bytes } = &change else { return };
        if let Some(inode) = self.inodes.get_mut(&id) {
            let mut torn = inode.visible.clone();
            apply_torn(&mut torn, &change, &mut self.rng);
            let bytes = torn.range(*offset, bytes.len());
            if !bytes.is_empty() {
                inode.change(Change::Write { offset: *offset, bytes });
            }
        }
    }

    /// Writes of a killed process arrive.
    fn land_late(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let ops = self.ops;
        let (landing, later) = std::mem::take(&mut self.late).into_iter().partition(|late| late.at_op <= ops);
        self.late = later;
        let landing: Vec<Late> = landing;
        for late in landing {
            if let Some(inode) = self.inodes.get_mut(&late.inode) {
                inode.change(late.change);
            }
        }
    }

    /// The next process finds nothing open.
    fn restart(&mut self) {
        self.open.clear();
        self.failures.clear();
        self.stop_at = None;
        self.forget_unreachable();
    }

    fn forget_unreachable(&mut self) {
        let mut reachable: Vec<InodeId> =
            self.names.values().chain(self.durable_names.values()).copied().collect();
        reachable.extend(self.open.iter().flatten().map(|open| open.inode));
        reachable.extend(self.late.iter().map(|late| late.inode));
        reachable.extend(self.name_changes.iter().filter_map(NameChange::inode));
        self.inodes.retain(|id, _| reachable.contains(id));
    }
}

impl NameChange {
    fn path(&self) -> &Path {
        match self {
            NameChange::Set { path, .. } | NameChange::Unset { path } => path,
            NameChange::Move { to, .. } => to,
        }
    }

    fn inode(&self) -> Option<InodeId> {
        match self {
            NameChange::Set { inode, .. } | NameChange::Move { inode, .. } => Some(*inode),
            NameChange::Unset { .. } => None,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, InodeId>) {
        match self {
            NameChange::Set { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Move { from, to, inode } => {
                // a later change may have given the old name to another file
                if names.get(from) == Some(inode) {
                    names.remove(from);
                }
                names.insert(to.clone(), *inode);
            }
            NameChange::Unset { path } => {
                names.remove(path);
            }
        }
    }
}

fn take_buf(op: Op) -> Option<IoBuf> {
    match op {
        Op::Read { buf, .. } | Op::Write { buf, .. } | Op::WriteDurable { buf, .. } => Some(buf),
        _ => None,
    }
}
