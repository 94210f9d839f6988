//! A batch of packets for a stage.

use xdpfwd_xsk::{Batch, Frame};

use crate::cx::Cx;
use crate::meta::Meta;
use crate::reason::Reason;
use crate::verdict::{PortId, Verdict};
use xdpfwd_wire::{Header, HeaderStack, Headers};

/// A batch of packets for a stage: frames, parsed headers and verdicts.
///
/// Batch indexes start from 0, in the order of arrival. A packet without a verdict goes on to the
/// next stage.
pub struct View<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) metas: &'a mut [Meta; Batch::CAPACITY],
    pub(crate) verdicts: &'a mut [Verdict; Batch::CAPACITY],
    /// Whether `hold` has taken a frame.
    pub(crate) has_taken: bool,
}

/// One packet of a [`View`].
pub struct PacketMut<'a> {
    /// The frame, from the Ethernet header on and without FCS, with headroom before and tailroom
    /// after.
    pub frame: &'a mut Frame,
    /// The ingress port and queue, and the parsed headers.
    pub meta: &'a mut Meta,
    verdict: &'a mut Verdict,
}

impl PacketMut<'_> {
    /// Drops the packet under one of [`Reason`]'s constants, or the stage's own
    /// [`DropReason`](crate::DropReason).
    #[inline]
    pub fn drop(&mut self, reason: impl Into<Reason>) {
        *self.verdict = Verdict::Drop(reason.into());
    }

    /// Sends the packet to this port's egress queue, past the remaining stages. If the port does
    /// not exist or the queue is full, the packet is dropped as [`Reason::NO_SUCH_PORT`] or
    /// [`Reason::EGRESS_FULL`].
    #[inline]
    pub fn send_to(&mut self, port: PortId) {
        *self.verdict = Verdict::To(port);
    }

    /// Parses the headers again after a change of headers or of the start of the frame.
    #[inline]
    pub fn reparse(&mut self) {
        Headers::parse_into(self.frame, &mut self.meta.headers);
    }

    /// Cuts the frame to the IP packet that `headers` describe, without headers before and padding
    /// after it. Pass the headers of the frame ([`Meta::headers`](crate::Meta::headers)) or of a
    /// packet in a tunnel ([`Headers::parse_inner`]). Without an IP packet, returns
    /// [`Reason::NOT_IP`] and leaves the frame unchanged.
    ///
    /// Afterwards, call [`reparse`](Self::reparse) or [`encapsulate`](Self::encapsulate), which
    /// parses the headers.
    #[inline]
    pub fn cut_to_ip(&mut self, headers: Headers) -> Result<(), Reason> {
        if headers.ip_version.is_none() {
            return Err(Reason::NOT_IP);
        }
        self.frame.truncate(headers.l3_end.into());
        self.frame.trim_front(headers.l3_offset.into());
        Ok(())
    }

    /// Writes headers in front of the frame, outermost first, and parses the frame again.
    /// [`HeaderStack`] describes which fields it fills in.
    ///
    /// A received frame has at least 256 bytes of headroom. Nothing checks the MTU of the egress
    /// port, and the kernel discards packets that exceed it (`kernel.tx_dropped` in reports).
    /// Therefore compare `frame.len() - 14` with [`PortInfo::mtu`](crate::PortInfo::mtu), and drop
    /// longer packets or answer them with [`IcmpErrors`](crate::IcmpErrors).
    ///
    /// All bytes of the frame become the payload. For an IP tunnel, first remove Ethernet header
    /// and padding with [`cut_to_ip`](Self::cut_to_ip), as in the example.
    ///
    /// Errors, which leave the frame unchanged:
    /// - [`Reason::NO_ROOM`] if the headers are longer than the headroom,
    /// - [`Reason::MALFORMED`] if [`HeaderStack::emit`] fails, for example because the headers are
    ///   in an invalid order.
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
    /// Returns the number of batch indexes, including the empty ones of packets that the stage has
    /// taken out of the batch with [`hold`](Self::hold).
    #[inline]
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Returns whether [`len`](Self::len) is 0.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Returns the packets in the order of arrival.
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

    /// Calls `process` with each packet, and drops the packet if it returns a reason.
    #[inline]
    pub fn each(&mut self, mut process: impl FnMut(&mut PacketMut<'_>) -> Result<(), Reason>) {
        for mut packet in self.packets() {
            if let Err(reason) = process(&mut packet) {
                packet.drop(reason);
            }
        }
    }

    /// Returns the packet at a batch index, unless the stage holds it or the index does not exist.
    #[inline]
    pub fn packet(&mut self, index: usize) -> Option<PacketMut<'_>> {
        let frame = self.batch.slots_mut().get_mut(index)?.as_mut()?;
        Some(PacketMut { frame, meta: &mut self.metas[index], verdict: &mut self.verdicts[index] })
    }

    /// Sets the verdict at a batch index, if the index exists.
    #[inline]
    pub fn set_verdict(&mut self, index: usize, verdict: Verdict) {
        if let Some(current) = self.verdicts[..self.batch.len()].get_mut(index) {
            *current = verdict;
        }
    }

    /// Takes a packet out of the batch. The stage holds the frame until it emits, drops or frees it
    /// through [`Cx`].
    ///
    /// Returns `None` if the index has no packet, or if the worker's stages already hold a quarter
    /// of its frames, which is the limit. The packet then stays in the batch; a stage that cannot
    /// let it pass drops it as [`Reason::HOLD_QUOTA`].
    pub fn hold(&mut self, index: usize, cx: &mut Cx<'_>) -> Option<Frame> {
        let slot = self.batch.slots_mut().get_mut(index).filter(|slot| slot.is_some())?;
        if !cx.take_hold_quota() {
            return None;
        }
        self.has_taken = true;
        slot.take()
    }

    /// Returns whether every packet is still in the batch with [`Verdict::Next`].
    #[inline]
    pub(crate) fn all_next(&self) -> bool {
        !self.has_taken
            && self.verdicts[..self.batch.len()].iter().all(|verdict| *verdict == Verdict::Next)
    }
}
