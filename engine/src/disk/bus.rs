//! What is said when a mapped page cannot be read at the moment of its touch (SIGBUS): which file, and where.
//!
//! A page is asked for by a call before its first touch, and a call answers with an error. What is left is a page that was
//! there and is gone: a file cut short by somebody, or a medium that fails after memory was short. The touch then raises a
//! signal, and the default is to end the process without a word. The handler here names file and offset, and ends it.
//!
//! ```text
//! FIRST > place > place > ...      a place: begin, file offset, path; begin 0: free; places are never freed
//! ```
//! The handler only loads atomics, formats into its own stack, and calls write and _exit: all of it may be done in a handler.
#![allow(unsafe_code, reason = "a signal handler is the kernel's to call")]

use std::io;
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Bytes of the message, cut if the path is longer.
const MESSAGE_BYTES: usize = 512;

/// Where some bytes of a file are mapped.
struct Place {
    /// 0: nowhere.
    begin: AtomicUsize,
    bytes: AtomicUsize,
    offset: AtomicU64,
    /// Borrowed from the [`Mapped`] that fills this place.
    path: AtomicPtr<u8>,
    path_bytes: AtomicUsize,
    next: AtomicPtr<Place>,
}

static FIRST: AtomicPtr<Place> = AtomicPtr::new(ptr::null_mut());

/// Bytes that are mapped, known to the handler as long as this lives.
pub(super) struct Mapped {
    place: &'static Place,
    _path: Arc<Path>,
}

impl Mapped {
    /// Of `bytes` mapped at `begin`, which are those of a file from `offset` on.
    pub(super) fn new(begin: *const u8, bytes: usize, path: &Arc<Path>, offset: u64) -> Mapped {
        let place = free_place();
        let text = path.as_os_str().as_encoded_bytes();
        place.path.store(text.as_ptr().cast_mut(), Ordering::Relaxed);
        place.path_bytes.store(text.len(), Ordering::Relaxed);
        place.bytes.store(bytes, Ordering::Relaxed);
        place.offset.store(offset, Ordering::Relaxed);
        place.begin.store(begin.addr(), Ordering::Release);
        Mapped { place, _path: Arc::clone(path) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.place.begin.store(0, Ordering::Release);
    }
}

/// A place that nobody fills: its begin is 1, an address at which nothing is mapped.
fn free_place() -> &'static Place {
    for place in places() {
        if place.begin.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return place;
        }
    }
    let place: &'static Place = Box::leak(Box::new(Place {
        begin: AtomicUsize::new(1),
        bytes: AtomicUsize::new(0),
        offset: AtomicU64::new(0),
        path: AtomicPtr::new(ptr::null_mut()),
        path_bytes: AtomicUsize::new(0),
        next: AtomicPtr::new(ptr::null_mut()),
    }));
    let own = ptr::from_ref(place).cast_mut();
    let mut first = FIRST.load(Ordering::Acquire);
    loop {
        place.next.store(first, Ordering::Relaxed);
        match FIRST.compare_exchange(first, own, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return place,
            Err(now) => first = now,
        }
    }
}

fn places() -> impl Iterator<Item = &'static Place> {
    let at = |place: &AtomicPtr<Place>| {
        let place = place.load(Ordering::Acquire);
        // SAFETY: the pointer is null or that of a leaked box, which lives for ever and is only shared.
        unsafe { place.as_ref() }
    };
    std::iter::successors(at(&FIRST), move |place| at(&place.next))
}

/// From now on a mapped page that cannot be read ends this process with a line on standard error that names file and
/// offset, and exit code 1, instead of without a word. For programs; a signal handler is the process's own.
///
/// # Errors
/// The system's.
pub fn name_bus_errors() -> io::Result<()> {
    // SAFETY: zeros are a sigaction without flags and handler; it is filled in below.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    action.sa_sigaction = on_bus_error as *const () as usize;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for and does only what a handler may (see the head).
    let done = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands the handler of a SIGBUS a siginfo with an address.
    let address = unsafe { (*info).si_addr() }.addr();
    match found(address) {
        Some((path, offset)) => say(path, offset),
        None => {
            // SAFETY: a plain call. When this returns, the touch is tried again and ends the process as it would have.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
        }
    }
}

/// What is mapped at an address: the file's path and the offset.
fn found(address: usize) -> Option<(&'static [u8], u64)> {
    places().find_map(|place| {
        let begin = place.begin.load(Ordering::Acquire);
        let within =
            address.checked_sub(begin).filter(|within| *within < place.bytes.load(Ordering::Relaxed));
        let within = within.filter(|_| begin > 1)?;
        let (path, bytes) = (place.path.load(Ordering::Relaxed), place.path_bytes.load(Ordering::Relaxed));
        // SAFETY: whoever touches a map has it, and with it the path that this place borrows.
        let path = unsafe { std::slice::from_raw_parts(path, bytes) };
        Some((path, place.offset.load(Ordering::Relaxed) + within as u64))
    })
}

/// Says it and ends the process.
fn say(path: &[u8], offset: u64) -> ! {
    let mut message = Message { bytes: [0; MESSAGE_BYTES], len: 0 };
    message.put(b"coffer: fault: ");
    message.put(path);
    message.put(b", offset ");
    message.put_number(offset);
    message.put(b": expected a page that was there before, found that it cannot be read any more (SIGBUS): ");
    message.put(b"was the file cut short? The process ends.\n");
    // SAFETY: plain calls that a handler may make; the buffer is this function's own.
    unsafe {
        libc::write(libc::STDERR_FILENO, message.bytes.as_ptr().cast(), message.len);
        libc::_exit(1)
    }
}

struct Message {
    bytes: [u8; MESSAGE_BYTES],
    len: usize,
}

impl Message {
    fn put(&mut self, text: &[u8]) {
        for byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = *byte;
                self.len += 1;
            }
        }
    }

    fn put_number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                return self.put(&digits[at..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_while_it_is_mapped_and_places_are_used_again() {
        let bytes = vec![0_u8; 8192];
        let path: Arc<Path> = Path::new("/a/file").into();
        let begin = bytes.as_ptr();
        let mapped = Mapped::new(begin, 8192, &path, 1 << 30);
        assert_eq!(found(begin.addr() + 4097), Some((&b"/a/file"[..], (1 << 30) + 4097)));
        drop(mapped);
        assert_eq!(found(begin.addr() + 4097), None);
        for _ in 0..10_000 {
            let mapped = Mapped::new(begin, 1, &path, 0);
            assert_eq!(found(begin.addr() + 1), None, "beyond what is mapped");
            drop(mapped);
        }
        assert!(places().count() < 10_000);
    }

    #[test]
    fn a_message_is_cut_where_there_is_no_room() {
        let mut message = Message { bytes: [0; MESSAGE_BYTES], len: 0 };
        message.put_number(0);
        message.put_number(u64::MAX);
        assert_eq!(&message.bytes[..message.len], b"018446744073709551615");
        message.put(&[b'x'; 2 * MESSAGE_BYTES]);
        assert_eq!(message.len, MESSAGE_BYTES);
    }
}
