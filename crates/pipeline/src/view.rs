//! A batch of packets for a stage.

use xdpfwd_xsk::{Batch, Frame};

use crate::cx::Cx;
use crate::meta::Meta;
use crate::reason::Reason;
use crate::verdict::{PortId, Verdict};
use xdpfwd_wire::{Header, HeaderStack, Headers};

/// A batch of packets for a stage to process: frames, parsed headers and verdicts.
///
/// Packets have batch indexes from 0, in the order of arrival. A packet without a verdict goes on
/// to the next stage.
pub struct View<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) metas: &'a mut [Meta; Batch::CAPACITY],
    pub(crate) verdicts: &'a mut [Verdict; Batch::CAPACITY],
    /// Whether `hold` has taken a frame out of the batch.
    pub(crate) has_taken: bool,
}

/// One packet of a [`View`].
pub struct PacketMut<'a> {
    /// The frame: its bytes start at the Ethernet header and exclude the FCS. It has headroom
    /// before these bytes and tailroom after them.
    pub frame: &'a mut Frame,
    /// The ingress port and queue, and the parsed headers.
    pub meta: &'a mut Meta,
    verdict: &'a mut Verdict,
}

impl PacketMut<'_> {
    /// Drops the packet and counts it under a reason: one of [`Reason`]'s constants, or the stage's
    /// own [`DropReason`](crate::DropReason).
    #[inline]
    pub fn drop(&mut self, reason: impl Into<Reason>) {
        *self.verdict = Verdict::Drop(reason.into());
    }

    /// Sends the packet to the egress queue of this port and skips the remaining stages. If the
    /// worker has no such port or the queue is full, the packet is dropped as
    /// [`Reason::NO_SUCH_PORT`] or [`Reason::EGRESS_FULL`].
    #[inline]
    pub fn send_to(&mut self, port: PortId) {
        *self.verdict = Verdict::To(port);
    }

    /// Parses the headers again, after the stage has rewritten them or moved the start of the
    /// frame.
    #[inline]
    pub fn reparse(&mut self) {
        Headers::parse_into(self.frame, &mut self.meta.headers);
    }

    /// Cuts the frame to the IP packet that `headers` describe: removes the headers before the IP
    /// packet and the padding after it. Pass the headers of the frame
    /// ([`Meta::headers`](crate::Meta::headers)) or of a packet in a tunnel
    /// ([`Headers::parse_inner`]). If `headers` describe no IP packet, returns [`Reason::NOT_IP`]
    /// and leaves the frame unchanged.
    ///
    /// Afterwards, call [`reparse`](Self::reparse) or [`encapsulate`](Self::encapsulate), which
    /// parses the headers itself.
    #[inline]
    pub fn cut_to_ip(&mut self, headers: Headers) -> Result<(), Reason> {
        if headers.ip_version.is_none() {
            return Err(Reason::NOT_IP);
        }
        self.frame.truncate(headers.l3_end.into());
        self.frame.trim_front(headers.l3_offset.into());
        Ok(())
    }

    /// Writes headers in front of the frame, outermost first, and parses the frame's headers again.
    /// [`HeaderStack`] describes which header fields it fills in.
    ///
    /// A received frame has at least 256 bytes of headroom. Nothing checks the MTU of the egress
    /// port: compare `frame.len() - 14` with [`PortInfo::mtu`](crate::PortInfo::mtu), and drop
    /// longer packets or answer them with [`IcmpErrors`](crate::IcmpErrors). The kernel discards
    /// longer packets and counts them as `kernel.tx_dropped`.
    ///
    /// All bytes of the frame become the payload. To put an IP packet into a tunnel, first remove
    /// Ethernet header and padding with [`cut_to_ip`](Self::cut_to_ip), as in the example.
    ///
    /// Errors, which leave the frame unchanged:
    /// - [`Reason::NO_ROOM`] if the headers are longer than the headroom,
    /// - [`Reason::MALFORMED`] if [`HeaderStack::emit`] returns an error, for example because the
    ///   headers are in an invalid order.
    ///
    /// ```
    /// use xdpfwd_pipeline::{Cx, Stage, View};
    /// use xdpfwd_wire::{ethernet, gtpu, ipv4};
    ///
    /// /// Sends IP packets through a GTP-U tunnel over IPv4.
    /// struct Tunnel {
    ///     ethernet: ethernet::Repr,
    ///     ip: ipv4::Repr,
    ///     teid: u32,
    /// }
    ///
    /// impl Stage for Tunnel {
    ///     fn process(&mut self, view: &mut View<'_>, _: &mut Cx<'_>) {
    ///         let headers = gtpu::tunnel(self.ethernet, self.ip, self.teid, &[]);
    ///         view.each(|packet| {
    ///             packet.cut_to_ip(packet.meta.headers)?;
    ///             packet.encapsulate(&headers)
    ///         });
    ///     }
    /// }
    /// ```
    pub fn encapsulate(&mut self, headers: &[Header<'_>]) -> Result<(), Reason> {
        let stack = HeaderStack(headers);
        let header_len = stack.header_len();
        if self.frame.prepend(header_len).is_err() {
            return Err(Reason::NO_ROOM);
        }
        if stack.emit(self.frame).is_err() {
            self.frame.trim_front(header_len);
            return Err(Reason::MALFORMED);
        }
        self.reparse();
        Ok(())
    }
}

impl View<'_> {
    /// Returns the number of batch indexes, including those whose packet the stage holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Returns whether [`len`](Self::len) is 0.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Returns the packets in the order in which they arrived.
    #[inline]
    pub fn packets(&mut self) -> impl Iterator<Item = PacketMut<'_>> {
        let slots = self.batch.slots_mut().iter_mut();
        slots.zip(self.metas.iter_mut()).zip(self.verdicts.iter_mut()).filter_map(
            |((slot, meta), verdict)| {
                let frame = slot.as_mut()?;
                Some(PacketMut { frame, meta, verdict })
            },
        )
    }

    /// Calls `process` with each packet. If `process` returns a reason, drops the packet under it.
    #[inline]
    pub fn each(&mut self, mut process: impl FnMut(&mut PacketMut<'_>) -> Result<(), Reason>) {
        for mut packet in self.packets() {
            if let Err(reason) = process(&mut packet) {
                packet.drop(reason);
            }
        }
    }

    /// Returns the packet at a batch index; `None` if the index is too large, or the stage holds
    /// the packet.
    #[inline]
    pub fn packet(&mut self, index: usize) -> Option<PacketMut<'_>> {
        let frame = self.batch.slots_mut().get_mut(index)?.as_mut()?;
        Some(PacketMut { frame, meta: &mut self.metas[index], verdict: &mut self.verdicts[index] })
    }

    /// Sets the verdict of the packet at a batch index. Does nothing if the index is too large.
    #[inline]
    pub fn set_verdict(&mut self, index: usize, verdict: Verdict) {
        if let Some(current) = self.verdicts[..self.batch.len()].get_mut(index) {
            *current = verdict;
        }
    }

    /// Takes the packet at a batch index out of the batch. The stage holds the frame until it
    /// emits, drops or frees it through [`Cx`].
    ///
    /// Returns `None` if the index has no packet, or the quota is used up: all stages of a worker
    /// together may hold at most a quarter of its frames. With the quota used up, the packet stays
    /// in the batch; a stage that cannot let it pass drops it as [`Reason::HOLD_QUOTA`].
    pub fn hold(&mut self, index: usize, cx: &mut Cx<'_>) -> Option<Frame> {
        let slot = self.batch.slots_mut().get_mut(index).filter(|slot| slot.is_some())?;
        if !cx.take_quota() {
            return None;
        }
        self.has_taken = true;
        slot.take()
    }

    /// Returns whether every packet is still in the batch and has the verdict [`Verdict::Next`].
    #[inline]
    pub(crate) fn all_next(&self) -> bool {
        !self.has_taken
            && self.verdicts[..self.batch.len()].iter().all(|verdict| *verdict == Verdict::Next)
    }
}
