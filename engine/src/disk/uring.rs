//! io_uring.
use super::{Completion, Disk, Op, Token, Waker};
use std::io;
/// The disk.
#[derive(Debug)]
pub struct UringDisk {}
impl UringDisk {
    /// Opens.
    pub fn open() -> io::Result<UringDisk> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
}
impl Disk for UringDisk {
    fn submit(&mut self, _op: Op) -> Token {
        unimplemented!()
    }
    fn poll(&mut self, _out: &mut Vec<Completion>) {}
    fn wait(&mut self, _timeout_us: Option<u64>) {}
    fn waker(&self) -> Waker {
        unimplemented!()
    }
    fn describe(&self) -> String {
        unimplemented!()
    }
}
