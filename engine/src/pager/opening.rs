//! Opening: what the newest whole meta says, and nothing else.
//!
//! ```text
//! absent:  directory > file under another name > allocate > pages 0..8 > sync > rename > open
//! there:   sync > sync directory > drop the cache > metas, past the cache > the newest whole one > directories > bitmap blocks > map
//! ```
//! A new file has its name only when it is whole and durable, so a file of that name without a whole meta is damage, never
//! an unfinished beginning.
//!
//! A killed process may have left bytes in the page cache that read back fine and may still be lost, or that a failed
//! write-out left there for good. So nothing is believed before the file was synced and the cache dropped: what is read
//! then is on the medium, and a meta found so is durable, with all that it names.
//!
//! Which meta should be there, this file alone cannot say: if both copies of the newest are gone, the older one is whole
//! and stale. What was found damaged is told ([`PagerOpened::metas_damaged`]), and whoever has the log compares
//! [`PagerOpened::checkpoint`] with the checkpoint that the log names. One that the disk refuses to give may be there the
//! next time: then nothing is opened.

use super::file::PageFile;
use super::meta::{FORMAT_NUMBER, Meta, NoMeta, PlaceRef, Which};
use super::meta::{block_bits, decode_directory, encode_block, encode_directory};
use super::page::{PAGE_BYTES, Page, PageId};
use super::places::{DIRECTORY_BLOCKS, FIRST_PAGE, META_PAGES, fixed_pages, meta_places};
use super::root::Root;
use super::space::{BITMAP_BYTES, REGION_PAGES};
use super::written::FileParts;
use super::{Pager, PagerOptions, grow};
use crate::Micros;
use crate::disk::blocking::{run, run_named, unexpected};
use crate::disk::{Disk, Done, FileId, IoBuf, Op};
use crate::error::Fault;
use std::io;
use std::path::{Path, PathBuf};

/// Reads under way at once.
const READS: usize = 64;

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PagerOpened {
    /// Whether there was no file before.
    pub fresh: bool,
    /// The newest durable transaction.
    pub tx: u64,
    /// Index of the last entry applied in it.
    pub applied: u64,
    /// Its term.
    pub applied_term: u64,
    /// Number of the checkpoint that made it durable; 0 for a new file.
    pub checkpoint: u64,
    /// Metas that are not what they should be: their offset in bytes, and what is wrong. A crash while a meta was written
    /// leaves its two copies like that.
    pub metas_damaged: Vec<(u64, String)>,
}

/// What the newest meta names, all of it read and checked.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) meta: Meta,
    pub(super) blocks: Vec<PlaceRef>,
    pub(super) used: Vec<[u8; BITMAP_BYTES]>,
    pub(super) metas_damaged: Vec<(u64, String)>,
}

impl Pager {
    /// Opens the page file at `options.path`, or makes one. Nothing else may be under way on the disk.
    ///
    /// # Errors
    /// [`Fault::Corrupt`] where no meta is whole, or what the newest whole one names is not; [`Fault::Unusable`] for a
    /// file of another owner, another format or another program; [`Fault::Io`], also where the disk does not give a meta
    /// that may be the newest.
    pub fn open(
        disk: &mut dyn Disk,
        options: PagerOptions,
        now: Micros,
    ) -> Result<(Pager, PagerOpened), Fault> {
        let path = options.path.clone();
        remove_if_there(disk, &unfinished_path(&path))?;
        let (file, bytes, fresh) = match open_file(disk, &path, true)? {
            Some((file, bytes)) => (file, bytes, false),
            None => {
                create(disk, &options)?;
                let opened = open_file(disk, &path, true)?;
                let (file, bytes) = opened.ok_or_else(|| missing(&path))?;
                (file, bytes, true)
            }
        };
        run_named(disk, "sync", &path, Op::Sync { file })?;
        // a killed process may have renamed it and not come to this
        sync_dir(disk, &path)?;
        run_named(disk, "drop from the cache", &path, Op::DropCache { file })?;
        let found = read_all(disk, &path, &options.owner, bytes)?;
        restore_copies(disk, &path, file, &found)?;
        let map = disk.map(&path).map_err(|source| fault("map", &path, 0, source))?;
        let root = Root::clone(&found.meta.root);
        let opened = PagerOpened {
            fresh,
            tx: root.tx,
            applied: root.standing.applied,
            applied_term: root.standing.applied_term,
            checkpoint: found.meta.number,
            metas_damaged: found.metas_damaged.clone(),
        };
        let pages = bytes / PAGE_BYTES as u64;
        let parts = FileParts { path, map, root, used: found.used };
        let mut pager = Pager::from_file(parts);
        pager.file = Some(PageFile::new(options, file, pages, &found.meta, found.blocks, now));
        Ok((pager, opened))
    }
}

/// The name of a file in the making.
fn unfinished_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn fault(operation: &'static str, path: &Path, offset: u64, source: io::Error) -> Fault {
    Fault::Io { operation, path: path.to_path_buf(), offset, source }
}

fn missing(path: &Path) -> Fault {
    fault("open", path, 0, io::Error::from(io::ErrorKind::NotFound))
}

fn remove_if_there(disk: &mut dyn Disk, path: &Path) -> Result<(), Fault> {
    match run(disk, Op::Remove { path: path.to_path_buf() }).1 {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(fault("remove", path, 0, source)),
    }
}

/// Opens the file, `None` if it is not there.
fn open_file(disk: &mut dyn Disk, path: &Path, cached: bool) -> Result<Option<(FileId, u64)>, Fault> {
    match run(disk, Op::Open { path: path.to_path_buf(), create: false, cached }).1 {
        Ok(Done::Opened(file, bytes)) => Ok(Some((file, bytes))),
        Ok(other) => Err(unexpected("open", path, &other)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => Err(Fault::Unusable {
            path: path.to_path_buf(),
            reason:
                "a directory stands where the page file should be; give coffer a data directory of its own"
                    .into(),
        }),
        Err(source) => Err(fault("open", path, 0, source)),
    }
}

/// Makes the file of an empty store.
fn create(disk: &mut dyn Disk, options: &PagerOptions) -> Result<(), Fault> {
    let path = unfinished_path(&options.path);
    let dir = dir_of(&path);
    run_named(disk, "create", &dir, Op::CreateDir { dir: dir.clone() })?;
    let opened =
        run_named(disk, "create", &path, Op::Open { path: path.clone(), create: true, cached: true })?;
    let Done::Opened(file, _) = opened else { return Err(unexpected("create", &path, &opened)) };
    let first = u64::from(FIRST_PAGE);
    let bytes = (first + 2 * grow::ahead_pages(first)) * PAGE_BYTES as u64;
    run_named(disk, "allocate", &path, Op::Allocate { file, bytes })?;
    run_named(disk, "write", &path, Op::Write { file, offset: 0, buf: first_pages(options.owner) })?;
    run_named(disk, "sync", &path, Op::Sync { file })?;
    run_named(disk, "close", &path, Op::Close { file })?;
    run_named(disk, "rename", &path, Op::Rename { from: path.clone(), to: options.path.clone() }).map(drop)
}

fn dir_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

fn sync_dir(disk: &mut dyn Disk, path: &Path) -> Result<(), Fault> {
    let dir = dir_of(path);
    run_named(disk, "sync", &dir, Op::SyncDir { dir: dir.clone() }).map(drop)
}

/// The fixed places of an empty store: meta A, twice, one block, one directory.
fn first_pages(owner: [u8; 16]) -> IoBuf {
    let mut bits = [0; BITMAP_BYTES];
    bits[0] = 0xff;
    const _: () = assert!(FIRST_PAGE == 8);
    let (block, block_ref) = encode_block(0, Which::Block(0).places()[0], 0, &bits);
    let (directory, directory_ref) = encode_directory(0, Which::Directory(0).places()[0], 0, &[block_ref]);
    let root =
        Root { pages_used: u64::from(FIRST_PAGE), pages_end: u64::from(FIRST_PAGE), ..Root::default() };
    let meta = Meta { owner, number: 0, root, blocks: 1, directories: vec![directory_ref] };
    let mut buf = IoBuf::zeroed(FIRST_PAGE as usize * PAGE_BYTES);
    let metas = meta_places(0).map(|place| meta.encode(place));
    for page in metas.iter().chain([&block, &directory]) {
        let at = page.id().offset() as usize;
        buf.as_mut_slice()[at..at + PAGE_BYTES].copy_from_slice(&page.0);
    }
    buf
}

/// Reads the metas, past the cache, and all that the newest whole one names.
pub(super) fn read_all(
    disk: &mut dyn Disk,
    path: &Path,
    owner: &[u8; 16],
    bytes: u64,
) -> Result<Found, Fault> {
    let (file, _) = open_file(disk, path, false)?.ok_or_else(|| missing(path))?;
    let (meta, metas_damaged) = newest_meta(disk, path, file, owner)?;
    let pages = bytes / PAGE_BYTES as u64;
    if meta.root.pages_end > pages {
        let expected = format!("{} pages, as the meta says", meta.root.pages_end);
        return Err(corrupt(path, bytes, expected, format!("the end of the file, {pages} pages")));
    }
    let blocks = read_directories(disk, path, file, &meta)?;
    let used = read_blocks(disk, path, file, &blocks)?;
    check_used(path, &meta, &blocks, &used)?;
    run_named(disk, "close", path, Op::Close { file })?;
    Ok(Found { meta, blocks, used, metas_damaged })
}

fn corrupt(path: &Path, offset: u64, expected: impl Into<String>, found: impl Into<String>) -> Fault {
    Fault::Corrupt { path: path.to_path_buf(), offset, expected: expected.into(), found: found.into() }
}

/// Reads pages, many at once, in the order of `places`. What lies beyond the end of the file reads as zeros.
fn read_pages(disk: &mut dyn Disk, path: &Path, file: FileId, places: &[PageId]) -> Result<Vec<Page>, Fault> {
    let mut pages = vec![Page([0; PAGE_BYTES]); places.len()];
    for (wave, part) in places.chunks(READS).enumerate() {
        let tokens: Vec<_> = part
            .iter()
            .map(|place| {
                disk.submit(Op::Read { file, offset: place.offset(), buf: IoBuf::zeroed(PAGE_BYTES) })
            })
            .collect();
        let mut completions = Vec::new();
        while completions.len() < tokens.len() {
            disk.wait(None);
            disk.poll(&mut completions);
        }
        for completion in completions {
            let Some(at) = tokens.iter().position(|token| *token == completion.token) else { continue };
            match completion.result {
                Ok(Done::Read(count)) => {
                    let bytes = completion.buf.as_ref().map_or(&[][..], IoBuf::as_slice);
                    pages[wave * READS + at].0[..count].copy_from_slice(&bytes[..count]);
                }
                Ok(other) => return Err(unexpected("read", path, &other)),
                Err(source) => return Err(fault("read", path, part[at].offset(), source)),
            }
        }
    }
    Ok(pages)
}

/// The newest whole meta, and what is wrong with the others.
fn newest_meta(
    disk: &mut dyn Disk,
    path: &Path,
    file: FileId,
    owner: &[u8; 16],
) -> Result<(Meta, Vec<(u64, String)>), Fault> {
    let places: Vec<PageId> = (0..META_PAGES).map(PageId).collect();
    let mut read = Vec::new();
    for copies in [meta_places(0), meta_places(1)] {
        read.extend(read_copies(disk, path, file, copies)?);
    }
    let newest = read.iter().flatten().max_by_key(|meta| meta.number).cloned();
    let Some(newest) = newest else { return Err(without_meta(path, &read)) };
    if newest.owner != *owner {
        let reason = format!("the page file belongs to {:02x?}, not to {owner:02x?}", newest.owner);
        return Err(Fault::Unusable { path: path.to_path_buf(), reason });
    }
    let mut damaged = Vec::new();
    for (place, read) in places.iter().zip(&read) {
        if let Some(what) = wrong_meta(&newest, *place, read) {
            damaged.push((place.offset(), what));
        }
    }
    Ok((newest, damaged))
}

/// Reads both copies of one meta. A sector that cannot be read costs a copy; where the other one is not whole either, the
/// disk may still give it the next time: whoever went on with the older meta would write over what this one names.
fn read_copies(
    disk: &mut dyn Disk,
    path: &Path,
    file: FileId,
    copies: [PageId; 2],
) -> Result<Vec<Result<Meta, NoMeta>>, Fault> {
    let (mut read, mut refused) = (Vec::new(), None);
    for place in copies {
        read.push(match read_pages(disk, path, file, &[place]) {
            Ok(mut pages) => Meta::decode(&pages.remove(0), place),
            Err(fault) => {
                let found = fault.to_string();
                refused = Some(fault);
                Err(NoMeta::Damaged { expected: "a meta".into(), found })
            }
        });
    }
    match refused {
        Some(fault) if read.iter().all(Result::is_err) => Err(fault),
        _ => Ok(read),
    }
}

/// What is wrong with one of the four, if the newest is `newest`.
fn wrong_meta(newest: &Meta, place: PageId, read: &Result<Meta, NoMeta>) -> Option<String> {
    let of_newest = meta_places(newest.number).contains(&place);
    // the other one is older by one, and was never written before the first checkpoint
    let expected = if of_newest { Some(newest.number) } else { newest.number.checked_sub(1) };
    match (read, expected) {
        (Ok(meta), Some(number)) if meta.number == number && meta.owner == newest.owner => None,
        (Err(NoMeta::Blank), None) => None,
        (Ok(meta), _) => Some(format!(
            "expected the meta of checkpoint {expected:?}, found that of {}, owner {:02x?}",
            meta.number, meta.owner
        )),
        (Err(NoMeta::Blank), _) => Some("expected a meta, found zeros".to_string()),
        (Err(NoMeta::Damaged { expected, found }), _) => Some(format!("expected {expected}, found {found}")),
        (Err(other), _) => Some(format!("expected a meta, found {other:?}")),
    }
}

/// Why a file without a whole meta is not opened.
fn without_meta(path: &Path, read: &[Result<Meta, NoMeta>]) -> Fault {
    let unusable = |reason: String| Fault::Unusable { path: path.to_path_buf(), reason };
    let errors = || read.iter().filter_map(|read| read.as_ref().err());
    for error in errors() {
        match error {
            NoMeta::Format(number) => {
                return unusable(format!(
                    "the page file has format {number}, this coffer reads format {FORMAT_NUMBER}; start the coffer that wrote it, \
                     or restore a snapshot of it"
                ));
            }
            NoMeta::PageBytes(bytes) => {
                return unusable(format!(
                    "the page file has pages of {bytes} bytes, this coffer's have {PAGE_BYTES}"
                ));
            }
            NoMeta::Bbolt => {
                return unusable(
                    "this is a database of etcd; give coffer a data directory of its own, and bring the data over with a \
                     snapshot (etcdctl snapshot save, coffer snapshot restore)"
                        .to_string(),
                );
            }
            NoMeta::Blank | NoMeta::Damaged { .. } => {}
        }
    }
    let found: Vec<String> = errors().map(|error| format!("{error:?}")).collect();
    corrupt(path, 0, "one of four metas whole", found.join("; "))
}

fn read_directories(
    disk: &mut dyn Disk,
    path: &Path,
    file: FileId,
    meta: &Meta,
) -> Result<Vec<PlaceRef>, Fault> {
    let places: Vec<PageId> = meta.directories.iter().map(|named| named.place).collect();
    let pages = read_pages(disk, path, file, &places)?;
    let mut blocks = Vec::new();
    for (number, (page, named)) in pages.iter().zip(&meta.directories).enumerate() {
        let number = number as u32;
        let count = (meta.blocks - number * DIRECTORY_BLOCKS).min(DIRECTORY_BLOCKS);
        let checked = Which::Directory(number).check(page, named);
        let named_blocks = checked.and_then(|()| decode_directory(page, number, count));
        blocks.extend(named_blocks.map_err(|wrong| not_named(path, named.place, &wrong))?);
    }
    Ok(blocks)
}

fn read_blocks(
    disk: &mut dyn Disk,
    path: &Path,
    file: FileId,
    blocks: &[PlaceRef],
) -> Result<Vec<[u8; BITMAP_BYTES]>, Fault> {
    let places: Vec<PageId> = blocks.iter().map(|named| named.place).collect();
    let pages = read_pages(disk, path, file, &places)?;
    let mut used = Vec::with_capacity(pages.len());
    for (number, (page, named)) in pages.iter().zip(blocks).enumerate() {
        let checked = Which::Block(number as u32).check(page, named);
        checked.map_err(|wrong| not_named(path, named.place, &wrong))?;
        let mut bits = [0; BITMAP_BYTES];
        bits.copy_from_slice(block_bits(page));
        used.push(bits);
    }
    Ok(used)
}

fn not_named(path: &Path, place: PageId, wrong: &NoMeta) -> Fault {
    match wrong {
        NoMeta::Damaged { expected, found } => corrupt(path, place.offset(), expected, found),
        other => corrupt(path, place.offset(), "what the meta names", format!("{other:?}")),
    }
}

/// That the bitmap agrees with the meta: as many pages used, none beyond the end, the fixed places among them.
fn check_used(
    path: &Path,
    meta: &Meta,
    blocks: &[PlaceRef],
    used: &[[u8; BITMAP_BYTES]],
) -> Result<(), Fault> {
    let mut count = 0;
    for (region, (bits, named)) in used.iter().zip(blocks).enumerate() {
        let here = bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
        let fixed = (0..fixed_pages(region as u32)).all(|page| bits[0] & (1 << page) != 0);
        let first = region as u64 * u64::from(REGION_PAGES);
        let end = meta.root.pages_end.saturating_sub(first).min(u64::from(REGION_PAGES));
        let beyond =
            (end..u64::from(REGION_PAGES)).find(|page| bits[(*page / 8) as usize] & (1 << (page % 8)) != 0);
        if !fixed || beyond.is_some() {
            let expected = format!("its fixed places used, and no page from {} on", first + end);
            let found = format!("fixed places used: {fixed}; used beyond the end: {beyond:?}");
            return Err(corrupt(path, named.place.offset(), expected, found));
        }
        count += here;
    }
    if count != meta.root.pages_used {
        let expected = format!("{} used pages, as the meta says", meta.root.pages_used);
        return Err(corrupt(path, 0, expected, format!("{count} in the bitmap")));
    }
    Ok(())
}

/// Writes the copies of the newest meta that are not whole once more: until now one of them carries everything.
fn restore_copies(disk: &mut dyn Disk, path: &Path, file: FileId, found: &Found) -> Result<(), Fault> {
    for place in meta_places(found.meta.number) {
        if found.metas_damaged.iter().any(|(offset, _)| *offset == place.offset()) {
            let mut buf = IoBuf::zeroed(PAGE_BYTES);
            buf.as_mut_slice().copy_from_slice(&found.meta.encode(place).0);
            let op = Op::WriteDurable { file, offset: place.offset(), buf };
            run_named(disk, "write", path, op)?;
        }
    }
    Ok(())
}
