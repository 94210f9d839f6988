//! A port with `recvmmsg` and `sendmmsg`: one system call per batch.

use std::io;

use xdpfwd_xsk::{Batch, EgressQueue, Frame, Pool, clock};

use crate::messages::{Inbox, MAX_RECEIVED, MAX_SENT, Outbox};
use crate::port::{Method, PacketPort, PortState, free, full_length_frame};
use crate::socket::PacketSocket;
use crate::vlan;

/// A port that receives a batch with one `recvmmsg` call and sends up to 256 packets with one
/// `sendmmsg` call.
pub type MmsgPort = PacketPort<Mmsg>;

/// The method of [`MmsgPort`].
#[derive(Debug)]
pub struct Mmsg {
    inbox: Inbox,
    outbox: Outbox,
    /// Frames to receive into, only during `receive`. An array on the stack would have to be
    /// cleared for each call.
    frames: Box<[Option<Frame>; MAX_RECEIVED]>,
}

impl Mmsg {
    /// Puts up to `count` free frames of maximum length into `self.frames`. Returns their number.
    #[inline]
    fn alloc_frames(&mut self, count: usize, pool: &mut Pool) -> usize {
        let mut allocated = 0;
        for slot in self.frames.iter_mut().take(count) {
            let Some(frame) = full_length_frame(pool) else { break };
            *slot = Some(frame);
            allocated += 1;
        }
        allocated
    }
}

impl Method for Mmsg {
    fn open(_: &PacketSocket) -> io::Result<Self> {
        let frames = Box::new([const { None }; MAX_RECEIVED]);
        Ok(Self { inbox: Inbox::new(), outbox: Outbox::new(), frames })
    }

    fn receive(&mut self, port: &mut PortState, into: &mut Batch, pool: &mut Pool) {
        // Without free frames, packets wait in the socket's buffer. If the buffer is full, the
        // kernel drops and counts them.
        let allocated = self.alloc_frames(into.room(), pool);
        if allocated == 0 {
            return;
        }
        port.counters.syscalls += 1;
        // An error means that no packet was received: EAGAIN, a signal, or the interface went down
        // (ENETDOWN, reported once; reception resumes by itself).
        let received =
            self.inbox.receive(port.socket.fd(), &mut self.frames[..allocated]).unwrap_or(0);
        for (slot, message) in self.frames.iter_mut().zip(self.inbox.received()).take(received) {
            let Some(mut frame) = slot.take() else { break };
            frame.truncate(message.len);
            let tag = message.aux.as_ref().and_then(vlan::removed_tag);
            port.deliver(frame, !message.is_truncated, tag, into, pool);
        }
        // Free the unused frames in reverse order, so that the next call allocates the same frames
        // in the same order.
        for frame in self.frames[received..allocated].iter_mut().rev().filter_map(Option::take) {
            free(frame, pool);
        }
    }

    fn transmit(&mut self, port: &mut PortState, queue: &mut EgressQueue) {
        loop {
            let wanted = queue.len().min(port.completions.room()).min(MAX_SENT);
            if wanted == 0 {
                break;
            }
            port.counters.syscalls += 1;
            // `sendmmsg` takes the place of the transmit wake-up of AF_XDP.
            port.counters.tx_wakes += 1;
            let start = clock::cycles();
            let sent = self.outbox.send(port.socket.fd(), queue.iter().take(wanted));
            port.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
            match sent {
                // Never observed; without this case, the loop might not end.
                Ok(0) => break,
                // The next pass of the loop sends the remaining frames or gets the error.
                Ok(sent) => port.count_sent(sent, queue),
                Err(error) => {
                    if !port.handle_refusal(&error, queue) {
                        break;
                    }
                }
            }
        }
    }
}
