//! Blocks a worker until packets arrive or another thread wakes it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// An eventfd that wakes a thread in [`WaitSet::wait`].
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Creates a waker.
    pub fn new() -> io::Result<Self> {
        // SAFETY: a plain system call. Needs `unsafe`: foreign call.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor without another owner. Needs `unsafe`: the compiler cannot know
        // that.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    /// Returns the file descriptor, for a [`WaitSet`].
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Ends the current wait; if no thread waits, the next wait ends at once.
    pub fn wake(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes. Needs `unsafe`: foreign call. The write fails only when the
        // counter is at its limit; a wake-up is then pending.
        unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Clears pending wake-ups. Returns whether there were any.
    pub fn clear(&self) -> bool {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes. Needs `unsafe`: foreign call. The read fails when no
        // wake-up is pending.
        let read =
            unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        read == count.len() as isize
    }
}

/// A set of file descriptors to wait on. The set does not keep the files open: the number of a
/// closed descriptor can refer to another file.
#[derive(Debug)]
pub struct WaitSet(Vec<libc::pollfd>);

impl WaitSet {
    /// Creates a set that waits for these descriptors to become readable.
    pub fn new(descriptors: impl IntoIterator<Item = RawFd>) -> Self {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        Self(descriptors.into_iter().map(entry).collect())
    }

    /// Blocks until a descriptor is readable or has an error, the timeout (rounded down to
    /// milliseconds) expires, or a signal arrives. `poll` also wakes the kernel for AF_XDP sockets
    /// that request a wake-up.
    pub fn wait(&mut self, timeout: Duration) {
        let millis = timeout.as_millis().min(i32::MAX as u128) as libc::c_int;
        // SAFETY: the array is ours and of this length. Needs `unsafe`: foreign call.
        let ready =
            unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, millis) };
        if ready < 0 {
            // Interrupted by a signal, poll has written nothing.
            self.0.iter_mut().for_each(|entry| entry.revents = 0);
        }
    }

    /// Returns whether the last wait found the descriptor readable or in error.
    pub fn is_ready(&self, fd: RawFd) -> bool {
        self.0.iter().any(|entry| entry.fd == fd && entry.revents != 0)
    }
}
