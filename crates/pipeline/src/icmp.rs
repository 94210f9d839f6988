//! ICMP errors that stages send: a message about a packet goes back to where the packet came from.

use xdpfwd_wire::Headers;
use xdpfwd_wire::icmp::{ErrorMessage, Problem, Sources};
use xdpfwd_xsk::Frame;

use crate::plan::BuildCx;
use crate::view::PacketMut;

/// Sender of ICMP errors for a stage of one worker, limited in rate.
#[derive(Clone, Debug)]
pub struct IcmpErrors {
    rate: Rate,
    sources: Sources,
}

impl IcmpErrors {
    /// Creates a sender for one worker. `per_second` limits the messages of all workers together;
    /// each has an equal share. Messages come from `sources`, or else from the address of the
    /// ingress interface, or else from the destination address of the packet that they are about.
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

    /// Turns a packet into an ICMP error about it, and sends it back out of its ingress port. `now`
    /// is [`Cx::now`](crate::Cx::now).
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

/// Rewrites a frame into an ICMP error about the packet in it. Returns false, and leaves the frame
/// as it was, if there is no room or no message may be sent.
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
/// The filter's rate limits are something else: workers share them, they count in units of a rule,
/// and they cannot be 0.
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

    /// Returns whether a message may be sent at this time. A clock that jumps back adds no token,
    /// and time counts on from there.
    fn has_token(&mut self, now_cycles: u64) -> bool {
        let elapsed = now_cycles.saturating_sub(self.last);
        self.last = now_cycles;
        self.tokens = (self.tokens + elapsed as f64 * self.per_cycle).min(self.max);
        self.tokens >= 1.0
    }

    /// Takes the token of a message that was sent.
    fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests;
