//! ICMP errors that stages send to the source of a packet.

use xdpfwd_wire::Headers;
use xdpfwd_wire::icmp::{ErrorMessage, Problem, Sources};
use xdpfwd_xsk::Frame;

use crate::plan::BuildCx;
use crate::view::PacketMut;

/// A rate-limited sender of ICMP errors for a stage of one worker.
#[derive(Clone, Debug)]
pub struct IcmpErrors {
    rate: Rate,
    sources: Sources,
}

impl IcmpErrors {
    /// Creates a sender for one worker. `per_second` limits the messages of all workers together;
    /// each worker has an equal share. The source address is from `sources`, or else the address of
    /// the ingress interface, or else the destination address of the packet.
    pub fn new(per_second: u32, sources: Sources, cx: &BuildCx<'_>) -> Self {
        let ingress = cx.from_port();
        Self {
            rate: Rate::new(per_second, cx.workers, xdpfwd_xsk::clock::cycles_per_second()),
            sources: Sources {
                v4: sources.v4.or_else(|| ingress?.ipv4()),
                v6: sources.v6.or_else(|| ingress?.ipv6()),
            },
        }
    }

    /// Turns a packet into an ICMP error about it, and sends the error from the packet's ingress
    /// port. `now` is [`Cx::now`](crate::Cx::now).
    ///
    /// Returns false, and leaves the packet as it was, if:
    /// - the rate limit is reached;
    /// - no message may be sent about the packet, see [`ErrorMessage::about`];
    /// - the packet was decrypted on its path, so that a message would quote it in clear text;
    /// - the frame has too little headroom: 28 bytes for IPv4, 48 for IPv6.
    pub fn answer(&mut self, packet: &mut PacketMut<'_>, problem: Problem, now: u64) -> bool {
        let may_send = !packet.meta.decrypted && self.rate.has_token(now);
        if !may_send || !rewrite(packet.frame, &packet.meta.headers, problem, &self.sources) {
            return false;
        }
        self.rate.take();
        packet.send_to(packet.meta.ingress);
        true
    }
}

/// Rewrites a frame into an ICMP error about its packet. Returns false, and leaves the frame
/// unchanged, if there is no room or no message may be sent.
fn rewrite(frame: &mut Frame, headers: &Headers, problem: Problem, sources: &Sources) -> bool {
    let Some(message) = ErrorMessage::about(frame, headers, problem, sources) else { return false };
    if frame.prepend(message.front_len()).is_err() {
        return false;
    }
    let written = message.emit(frame);
    debug_assert!(written.is_ok(), "the message fits into the frame that it is about");
    frame.truncate(message.frame_len());
    true
}

/// A token bucket for one worker, full at first.
///
/// Unlike the filter's rate limits, it is not shared by workers, needs no unit of a rule, and can
/// be 0.
#[derive(Clone, Debug)]
struct Rate {
    tokens: f64,
    max: f64,
    per_cycle: f64,
    last: u64,
}

impl Rate {
    /// Creates a worker's bucket: an equal share of `per_second`, at least one message per second
    /// unless `per_second` is 0. A burst is a tenth of a second's share, and at least one message.
    fn new(per_second: u32, workers: usize, cycles_per_second: f64) -> Self {
        if per_second == 0 {
            return Self { tokens: 0.0, max: 0.0, per_cycle: 0.0, last: 0 };
        }
        let share = (f64::from(per_second) / workers.max(1) as f64).max(1.0);
        let max = (share / 10.0).max(1.0);
        Self { tokens: max, max, per_cycle: share / cycles_per_second, last: 0 }
    }

    /// Returns whether a message may be sent now. A clock that jumps back adds no token,
    /// and time counts on from there.
    fn has_token(&mut self, now_cycles: u64) -> bool {
        let elapsed = now_cycles.saturating_sub(self.last);
        self.last = now_cycles;
        self.tokens = (self.tokens + elapsed as f64 * self.per_cycle).min(self.max);
        self.tokens >= 1.0
    }

    /// Removes the token of a sent message.
    fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests;
