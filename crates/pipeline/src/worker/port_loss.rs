//! Losing a port and opening it again, while the worker and its other ports go on.
//!
//! A closed port has a [`NoPort`] in place of its socket: it receives nothing, and its egress queue
//! refuses every packet ([`Reason::PORT_DOWN`]). The socket and its frames are in
//! `Worker::quarantine` until a proof that the kernel has released the frames.

use std::collections::BTreeSet;
use std::mem;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use xdpfwd_xsk::{
    Batch, Binding, Bound, Builder, Counters, EgressQueue, KernelCounters, OpenError, Pool, Port,
    PortFrameCounts, Quarantine, Released, Umem,
};

use super::Worker;
use crate::chain::Chain;
use crate::cx::discard;
use crate::ledger::Task;
use crate::reason::Reason;
use crate::verdict::PortId;

/// Why a port was not opened. Its sockets were closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenPortError {
    /// The port does not exist or is up, or no sockets were prepared for it.
    #[error("the port is not waiting for sockets")]
    NotWaiting,
    /// The number of sockets is not that of the port's queues.
    #[error("{sockets} sockets do not fit the {queues} queues of the port")]
    Count {
        /// The number of sockets.
        sockets: usize,
        /// The number of queues.
        queues: usize,
    },
    /// A socket has another UMEM than the worker.
    #[error("a socket belongs to another UMEM than the worker")]
    OtherUmem,
}

/// How far the sending of packets has come on a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmission {
    /// Whether packets wait in the TX ring, so that the device could send.
    pub waits: bool,
    /// Number of packets that the kernel has reported as sent since the socket was opened.
    pub sent: u64,
}

/// Maximum number of batches taken from a socket before it is closed: more than an RX ring has.
const MAX_LAST_BATCHES: usize = 64;

impl<C: Chain> Worker<C> {
    /// Returns whether all sockets of a port are bound to its interface; see [`Port::is_bound`]. A
    /// closed port is not. Makes a system call for each queue.
    pub fn is_port_bound(&self, port: PortId) -> bool {
        self.queues_of(port).all(|index| {
            let port_queue = &self.port_queues[index];
            !port_queue.is_down && port_queue.socket.is_bound()
        })
    }

    /// Returns how far the sending of packets has come on each queue of a port.
    pub fn transmission(&self, port: PortId) -> Vec<Transmission> {
        let sockets = self.queues_of(port).map(|index| &self.port_queues[index].socket);
        let transmission = sockets.map(|socket| {
            let frames = socket.frame_counts();
            Transmission {
                waits: socket.has_unsent(),
                sent: socket.counters().tx_packets - frames.tx - frames.completion,
            }
        });
        transmission.collect()
    }

    /// Stops using the sockets of a port. Packets that they have received are processed first.
    /// Packets that wait to be sent on this port, and all later ones, are dropped as
    /// [`Reason::PORT_DOWN`]. Packets that the kernel has not reported as sent are counted in
    /// `tx_lost`. The frames of the sockets are out of use until [`take_back`](Self::take_back),
    /// which needs [`close_sockets`](Self::close_sockets) first.
    pub fn close_port(&mut self, port: PortId) {
        for index in self.queues_of(port) {
            if self.port_queues[index].is_down {
                continue;
            }
            self.process_last_packets(index);
            let port_queue = &mut self.port_queues[index];
            port_queue.socket.reclaim(&mut self.pool);
            let mut counters = port_queue.socket.counters();
            let frames = port_queue.socket.frame_counts();
            counters.tx_lost += frames.tx + frames.completion;
            port_queue.earlier.0 += counters;
            port_queue.earlier.1 += port_queue.socket.kernel_counters();
            port_queue.is_down = true;
            let socket = mem::replace(&mut port_queue.socket, Box::new(NoPort));
            let quarantine = socket.close(&mut self.pool);
            self.keep(quarantine);
            for frame in self.egress.close(index) {
                discard(&mut self.pool, &mut self.drops, frame, Reason::PORT_DOWN);
            }
        }
        self.ports_changed = true;
    }

    /// Processes what a socket has received.
    fn process_last_packets(&mut self, index: usize) {
        let Some(path) = self.port_queues[index].path else { return };
        self.ledger.book(Task::Control, 0);
        self.port_queues[index].socket.stop_posting();
        for _ in 0..MAX_LAST_BATCHES {
            let packets = self.port_queues[index].socket.receive(&mut self.batch, &mut self.pool);
            if packets == 0 {
                return;
            }
            self.ledger.book(Task::Receive, packets);
            self.forward(path, index);
            self.transmit();
        }
    }

    /// Prepares AF_XDP sockets for a closed port: one for each queue of the builder, which must be
    /// the port's queues. Bind them with the result, in order and preferably on another thread,
    /// then call [`open_prepared_port`](Self::open_prepared_port), or after a failure
    /// [`cancel_prepared_port`](Self::cancel_prepared_port).
    pub fn prepare_port(
        &mut self,
        port: PortId,
        builder: &Builder,
    ) -> Result<Vec<Binding>, OpenError> {
        let sibling = self.port_queues.iter().find_map(|port_queue| {
            port_queue.socket.umem_socket().filter(|_| port_queue.socket.is_bound())
        });
        let queues = self.port_queues.len();
        let prepared = builder.prepare(&self.umem, &mut self.pool, sibling, queues)?;
        let (ports, bindings): (Vec<_>, Vec<_>) = prepared.into_iter().unzip();
        self.prepared.push((port, ports));
        Ok(bindings)
    }

    /// Puts the prepared sockets of a port into use, which were bound with these results. Returns
    /// the descriptor of each queue's socket, with the number of the queue.
    pub fn open_prepared_port(
        &mut self,
        port: PortId,
        bound: &[Bound],
    ) -> Result<Vec<(u16, RawFd)>, OpenPortError> {
        let position = self.prepared.iter().position(|(id, _)| *id == port);
        let position = position.ok_or(OpenPortError::NotWaiting)?;
        let (sockets, queues) = (bound.len(), self.prepared[position].1.len());
        if sockets != queues {
            self.cancel_prepared_port(port);
            return Err(OpenPortError::Count { sockets, queues });
        }
        let (_, prepared) = self.prepared.swap_remove(position);
        let sockets = prepared
            .into_iter()
            .zip(bound)
            .map(|(prepared, bound)| prepared.into_port(bound) as Box<dyn Port>);
        let sockets = sockets.collect();
        self.open_port(port, sockets)
    }

    /// Stops using the prepared sockets of a port.
    pub fn cancel_prepared_port(&mut self, port: PortId) {
        let (cancelled, others): (Vec<_>, Vec<_>) =
            mem::take(&mut self.prepared).into_iter().partition(|(id, _)| *id == port);
        self.prepared = others;
        for prepared in cancelled.into_iter().flat_map(|(_, prepared)| prepared) {
            let quarantine = prepared.cancel(&mut self.pool);
            self.keep(quarantine);
        }
    }

    /// Opens a closed port with one socket for each of its queues. Returns the descriptor of each
    /// socket that has one, with the number of its queue.
    pub fn open_port(
        &mut self,
        port: PortId,
        sockets: Vec<Box<dyn Port>>,
    ) -> Result<Vec<(u16, RawFd)>, OpenPortError> {
        let (count, queues) = (sockets.len(), self.queues_of(port));
        let is_other = |umem: &Umem| !umem.is_same(&self.umem);
        let error = if sockets.iter().any(|socket| socket.umem().is_some_and(is_other)) {
            // Its frames cannot return to this worker's pool.
            return Err(OpenPortError::OtherUmem);
        } else if queues.is_empty() || !self.port_queues[queues.clone()].iter().all(|q| q.is_down) {
            Some(OpenPortError::NotWaiting)
        } else if count != queues.len() {
            Some(OpenPortError::Count { sockets: count, queues: queues.len() })
        } else {
            None
        };
        if let Some(error) = error {
            for socket in sockets {
                let quarantine = socket.close(&mut self.pool);
                self.keep(quarantine);
            }
            return Err(error);
        }
        let mut descriptors = Vec::with_capacity(sockets.len());
        for (index, socket) in self.queues_of(port).zip(sockets) {
            let port_queue = &mut self.port_queues[index];
            descriptors.extend(socket.fd().map(|fd| (port_queue.queue, fd)));
            port_queue.socket = socket;
            port_queue.is_down = false;
            self.egress.open(index);
        }
        self.ports_changed = true;
        Ok(descriptors)
    }

    /// Closes sockets of closed ports: those that the kernel has unbound, and those that were bound
    /// to the interface `needed`, whose queues new sockets need. Not those whose packets the kernel
    /// is still sending. Drop the returned descriptors on a thread that may block: then the kernel
    /// releases the queues.
    pub fn close_sockets(&mut self, needed: Option<u32>) -> Vec<OwnedFd> {
        let descriptors = self.quarantine.iter_mut().filter_map(|quarantine| {
            let interface = quarantine.queue().map(|queue| queue.ifindex);
            quarantine.close_socket(needed.is_some() && interface == needed)
        });
        let descriptors = descriptors.collect();
        self.quarantine.retain(|quarantine| !quarantine.is_empty());
        descriptors
    }

    /// Returns the indexes of the interfaces whose removal allows to take
    /// [quarantined](Self::quarantined) frames back.
    pub fn quarantined_interfaces(&self) -> BTreeSet<u32> {
        self.quarantine.iter().filter_map(Quarantine::ends_with_interface).collect()
    }

    /// Moves the frames of closed ports to the pool, as far as the proof is about them. Returns
    /// their number.
    pub fn take_back(&mut self, released: &Released) -> usize {
        let mut taken = 0;
        for quarantine in mem::take(&mut self.quarantine) {
            match quarantine.take_back(released, &mut self.pool) {
                Ok(frames) => taken += frames,
                Err(quarantine) => self.quarantine.push(quarantine),
            }
        }
        taken
    }

    /// Returns the number of frames of closed ports that the kernel may still access.
    pub fn quarantined(&self) -> usize {
        self.quarantine.iter().map(Quarantine::frames).sum()
    }

    fn keep(&mut self, quarantine: Quarantine) {
        if !quarantine.is_empty() {
            self.quarantine.push(quarantine);
        }
    }

    /// Returns the indexes of a port's queues in `port_queues`.
    fn queues_of(&self, port: PortId) -> Range<usize> {
        let first = self.egress.index_of(port, 0);
        let end = self.egress.index_of(port, self.egress.queues_per_port());
        first.min(self.port_queues.len())..end.min(self.port_queues.len())
    }
}

/// The port in place of a closed one.
pub(super) struct NoPort;

impl Port for NoPort {
    fn umem(&self) -> Option<&Umem> {
        None
    }

    fn receive(&mut self, _: &mut Batch, _: &mut Pool) -> usize {
        0
    }

    fn transmit(&mut self, _: &mut EgressQueue) -> usize {
        // The queue is empty: it accepts no frame.
        0
    }

    fn reclaim(&mut self, _: &mut Pool) -> usize {
        0
    }

    fn has_unsent(&self) -> bool {
        false
    }

    fn fd(&self) -> Option<RawFd> {
        None
    }

    fn umem_socket(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn frame_counts(&self) -> PortFrameCounts {
        PortFrameCounts::default()
    }

    fn counters(&self) -> Counters {
        Counters::default()
    }

    fn kernel_counters(&self) -> KernelCounters {
        KernelCounters::default()
    }

    fn is_bound(&self) -> bool {
        false
    }

    fn close(self: Box<Self>, _: &mut Pool) -> Quarantine {
        Quarantine::none()
    }
}
