//! Waiting for packets without burning a core, and being woken from another thread.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Wakes a thread that is in [`WaitSet::wait`], from any thread: an eventfd.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new one.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call. Unsafe: foreign call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor that nobody else owns. Unsafe: that is for us to know.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Its descriptor, by number, for a [`WaitSet`].
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Ends the wait that is going on, or the next one.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. Unsafe: foreign call. It fails only when the counter is at
        // its limit: awake then.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Forgets the wake-ups so far. Whether there were any.
    pub fn clear(&self) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes. Unsafe: foreign call. It fails when there was none: nothing
        // to forget.
        let read =
            unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read == count.len() as isize
    }
}

/// A set of descriptors to wait on, made once so that waiting allocates nothing. It refers to them
/// by number: of a descriptor that was closed meanwhile, the number may stand for another file.
#[derive(Debug)]
pub struct WaitSet(Vec<libc::pollfd>);

impl WaitSet {
    /// Waits for these to become readable.
    pub fn new(descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        Self(descriptors.into_iter().map(entry).collect())
    }

    /// Blocks until one is readable, has an error, or the time is over; a signal ends it too.
    /// AF_XDP sockets that want to be woken are woken by this call.
    pub fn wait(&mut self, at_most: Duration) {
        let timeout = at_most.as_millis().min(i32::MAX as u128) as libc::c_int;
        // SAFETY: the array is ours and of this length. Unsafe: foreign call.
        let ready =
            unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, timeout) };
        if ready < 0 {
            // A signal: poll has written nothing.
            self.0.iter_mut().for_each(|entry| entry.revents = 0);
        }
    }

    /// Whether the last wait found this one readable, or in error.
    pub fn is_ready(&self, fd: RawFd) -> bool {
        self.0.iter().any(|entry| entry.fd == fd && entry.revents != 0)
    }
}
