//! A whole store as one stream of bytes, out and in: backup and restore.
//!
//! ```text
//! +------+-----+-----+------+------+------+-- --+------+
//! | head | map | map | page | page | page |     | page |   blocks of 4,096 bytes
//! +------+-----+-----+------+------+------+-- --+------+
//!   |      |           the pages of one root, in the order of their ids, as they stand in the page file
//!   |      which ids these are, a bit for each
//!   roots of the trees, where the state stood, numbers
//! ```
//! | part | what it does |
//! |---|---|
//! | format.rs | the head and the map, byte by byte |
//! | reader.rs | [`SnapshotReader`]: an image of the newest durable root, piece by piece |
//! | image.rs | [`Image`]: an image in a file, read as a store, made into a page file |
//!
//! Rules
//! - An image holds what its trees reach and nothing else: no free page, no meta, no bitmap. Its length is known before the
//!   first byte is read.
//! - Every block carries its own CRC-32, and every page stands in its parent with CRC and transaction: an image is checked
//!   without its checksum, and what was swapped or left from another time is found too.
//! - A page that is damaged in the page file ends the image with a fault; nothing damaged gets into one silently.
//!
//! It leaves to others: framing and the checksum behind the image, where an image goes, and whose data it becomes.

mod format;
mod image;
mod reader;

pub use format::{FORMAT_NUMBER, ImageHead, LABEL_BYTES, PageSet};
pub use image::{CHECKSUM_BYTES, Image};
pub use reader::SnapshotReader;

pub(crate) use format::check_page;
pub(crate) use reader::PageReader;
