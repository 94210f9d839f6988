//! Receives and sends packets as messages: batches with `recvmmsg` and `sendmmsg`, single ones with
//! `recvmsg` and `send`.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr;

use xdpfwd_xsk::{Batch, Frame};

use crate::abi::{AuxData, Control};

/// Maximum messages per `recvmmsg` call: one batch.
pub(crate) const MAX_RECEIVED: usize = Batch::CAPACITY;

/// Maximum messages per `sendmmsg` call: several batches, below the kernel's limit of 1024
/// (`UIO_MAXIOV`).
pub(crate) const MAX_SENT: usize = 256;

/// Headers and control buffers for receiving a batch, allocated once.
pub(crate) struct Inbox {
    headers: Box<[libc::mmsghdr; MAX_RECEIVED]>,
    buffers: Box<[libc::iovec; MAX_RECEIVED]>,
    controls: Box<[Control; MAX_RECEIVED]>,
}

#[derive(Clone, Copy)]
pub(crate) struct Received {
    pub(crate) len: usize,
    pub(crate) is_truncated: bool,
    pub(crate) aux: Option<AuxData>,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: Box::new([EMPTY_HEADER; MAX_RECEIVED]),
            buffers: Box::new([EMPTY_BUFFER; MAX_RECEIVED]),
            controls: Box::new([EMPTY_CONTROL; MAX_RECEIVED]),
        }
    }

    /// Receives waiting messages, one per frame, into the frames before the first `None`. Truncates
    /// a message that is longer than its frame. Never blocks. Returns the number of received
    /// messages.
    pub(crate) fn receive(
        &mut self,
        socket: RawFd,
        frames: &mut [Option<Frame>],
    ) -> io::Result<usize> {
        let mut count = 0;
        let slots =
            self.headers.iter_mut().zip(self.buffers.iter_mut()).zip(self.controls.iter_mut());
        for (frame, ((header, buffer), control)) in
            frames.iter_mut().map_while(Option::as_mut).zip(slots)
        {
            let bytes = &mut frame[..];
            *buffer = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            header.msg_hdr.msg_iov = buffer;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = ptr::from_mut(control).cast();
            header.msg_hdr.msg_controllen = mem::size_of::<Control>();
            count += 1;
        }
        // SAFETY: the first `count` headers point at buffers of the given lengths: bytes of mutably
        // borrowed frames, and our own control buffers. All outlive the call, and the kernel keeps
        // no address. No timeout is passed. Needs `unsafe`: foreign call with raw pointers.
        let received = unsafe {
            libc::recvmmsg(
                socket,
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
    }

    /// Returns the received messages. Only the first `n` are valid, where `n` is the result of the
    /// last `receive`.
    #[inline]
    pub(crate) fn received(&self) -> impl Iterator<Item = Received> + '_ {
        self.headers.iter().zip(self.controls.iter()).map(|(header, control)| {
            Received::new(header.msg_len as usize, &header.msg_hdr, control)
        })
    }
}

impl Received {
    #[inline]
    fn new(len: usize, header: &libc::msghdr, control: &Control) -> Self {
        let Control { header: control_header, aux, .. } = control;
        // The kernel has written all fields before `padding`.
        let has_aux = header.msg_controllen >= mem::offset_of!(Control, padding)
            && (control_header.cmsg_level, control_header.cmsg_type)
                == (libc::SOL_PACKET, libc::PACKET_AUXDATA);
        let is_truncated = header.msg_flags & libc::MSG_TRUNC != 0;
        Self { len, is_truncated, aux: has_aux.then_some(*aux) }
    }
}

/// Control buffer for receiving a packet, allocated once.
pub(crate) struct Message {
    control: Box<Control>,
}

impl Message {
    pub(crate) fn new() -> Self {
        Self { control: Box::new(EMPTY_CONTROL) }
    }

    /// Receives a waiting message. Truncates a message that is longer than the buffer. Never
    /// blocks.
    #[inline]
    pub(crate) fn receive(&mut self, socket: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
        let mut bytes = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut header = EMPTY_HEADER.msg_hdr;
        header.msg_iov = &mut bytes;
        header.msg_iovlen = 1;
        header.msg_control = ptr::from_mut(&mut *self.control).cast();
        header.msg_controllen = mem::size_of::<Control>();
        // SAFETY: the header points at a mutably borrowed buffer of the given length, and at our
        // own control buffer. All outlive the call, and the kernel keeps no address. Needs
        // `unsafe`: foreign call with raw pointers.
        let received = unsafe { libc::recvmsg(socket, &mut header, libc::MSG_DONTWAIT) };
        match usize::try_from(received) {
            Ok(len) => Ok(Received::new(len, &header, &self.control)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }
}

/// Sends a packet. Never blocks.
#[inline]
pub(crate) fn send(socket: RawFd, packet: &[u8]) -> io::Result<()> {
    // SAFETY: the packet is readable for its length during the call. Needs `unsafe`: foreign call
    // with a raw pointer.
    let sent =
        unsafe { libc::send(socket, packet.as_ptr().cast(), packet.len(), libc::MSG_DONTWAIT) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Headers for sending messages, allocated once.
pub(crate) struct Outbox {
    headers: Box<[libc::mmsghdr; MAX_SENT]>,
    buffers: Box<[libc::iovec; MAX_SENT]>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        Self {
            headers: Box::new([EMPTY_HEADER; MAX_SENT]),
            buffers: Box::new([EMPTY_BUFFER; MAX_SENT]),
        }
    }

    /// Sends up to [`MAX_SENT`] frames, and returns how many were sent. Never blocks. Fails only if
    /// the first frame could not be sent.
    pub(crate) fn send<'a>(
        &mut self,
        socket: RawFd,
        frames: impl Iterator<Item = &'a Frame>,
    ) -> io::Result<usize> {
        let mut count = 0;
        for (frame, (header, buffer)) in
            frames.zip(self.headers.iter_mut().zip(self.buffers.iter_mut()))
        {
            // `cast_mut` is sound: the kernel does not write to these buffers.
            *buffer =
                libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() };
            header.msg_hdr.msg_iov = buffer;
            header.msg_hdr.msg_iovlen = 1;
            count += 1;
        }
        // SAFETY: the first `count` headers point at buffers of the given lengths, the bytes of
        // frames that the caller borrows; `sendmmsg` only reads them, before it returns. Needs
        // `unsafe`: foreign call with raw pointers.
        let sent = unsafe {
            libc::sendmmsg(socket, self.headers.as_mut_ptr(), count, libc::MSG_DONTWAIT as _)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

const EMPTY_BUFFER: libc::iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };

// SAFETY: structs of integers and pointers, for which zeros are valid. Needs `unsafe`: libc offers
// no other way to initialise the padding that these structs have on some platforms.
const EMPTY_HEADER: libc::mmsghdr = unsafe { mem::zeroed() };
// SAFETY: as for `EMPTY_HEADER`.
const EMPTY_CONTROL: Control = unsafe { mem::zeroed() };

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message").finish_non_exhaustive()
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}
