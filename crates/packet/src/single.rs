//! A port with one system call per packet: the traditional way to use a packet socket.

use std::io;

use xdpfwd_xsk::{Batch, EgressQueue, Pool, clock};

use crate::messages::{Message, send};
use crate::port::{Method, PacketPort, PortState, free, full_length_frame};
use crate::socket::PacketSocket;
use crate::vlan;

/// A port that receives each packet with one `recvmsg` call and sends each with one `send` call.
pub type SinglePort = PacketPort<Single>;

/// Maximum packets per call of `receive`, half a batch. A worker takes a partial batch as the end
/// of the waiting packets, sends what it has, and serves the next port. So it makes at most this
/// many calls before it sends the first packet; with four full batches, it would make 256.
pub(crate) const MAX_RECEIVED: usize = Batch::CAPACITY / 2;

/// The method of [`SinglePort`].
#[derive(Debug)]
pub struct Single {
    message: Message,
}

impl Method for Single {
    fn open(_: &PacketSocket) -> io::Result<Self> {
        Ok(Self { message: Message::new() })
    }

    fn receive(&mut self, port: &mut PortState, into: &mut Batch, pool: &mut Pool) {
        for _ in 0..into.room().min(MAX_RECEIVED) {
            // Without free frames, packets wait in the socket's buffer. If the buffer is full, the
            // kernel drops and counts them.
            let Some(mut frame) = full_length_frame(pool) else { break };
            port.counters.syscalls += 1;
            let Ok(received) = self.message.receive(port.socket.fd(), &mut frame) else {
                // EAGAIN, a signal, or the interface went down (ENETDOWN, reported once; reception
                // resumes by itself).
                free(frame, pool);
                break;
            };
            frame.truncate(received.len);
            let tag = received.aux.as_ref().and_then(vlan::removed_tag);
            port.deliver(frame, !received.is_truncated, tag, into, pool);
        }
    }

    fn transmit(&mut self, port: &mut PortState, queue: &mut EgressQueue) {
        loop {
            let wanted = queue.len().min(port.completions.room());
            if wanted == 0 {
                break;
            }
            let fd = port.socket.fd();
            let mut sent = 0;
            let mut refusal = None;
            let start = clock::cycles();
            for frame in queue.iter().take(wanted) {
                match send(fd, frame) {
                    Ok(()) => sent += 1,
                    Err(error) => {
                        refusal = Some(error);
                        break;
                    }
                }
            }
            // `send` takes the place of the transmit wake-up of AF_XDP.
            port.counters.tx_wake_cycles += clock::cycles().wrapping_sub(start);
            let calls = sent as u64 + u64::from(refusal.is_some());
            port.counters.syscalls += calls;
            port.counters.tx_wakes += calls;
            port.count_sent(sent, queue);
            if refusal.is_some_and(|error| !port.handle_refusal(&error, queue)) {
                break;
            }
        }
    }
}
