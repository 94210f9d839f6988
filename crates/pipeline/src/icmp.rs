//! ICMP errors that stages send to the source of a packet.

mod budgets;
mod token_bucket;

use xdpfwd_wire::Headers;
use xdpfwd_wire::icmp::{ErrorMessage, Problem, Sources};
use xdpfwd_xsk::Frame;

use self::budgets::Budgets;
use crate::plan::BuildCx;
use crate::view::PacketMut;

/// A rate-limited sender of ICMP errors for one worker's stage.
#[derive(Clone, Debug)]
pub struct IcmpErrors {
    budgets: Budgets,
    sources: Sources,
}

impl IcmpErrors {
    /// Creates a sender. `per_second` is the limit for the messages that all workers together send
    /// to one source prefix, an IPv4 address or an IPv6 /64. Each worker may send an equal share,
    /// and at least one per second unless `per_second` is 0. All prefixes together get at most 16
    /// times as many. The messages have the source address in `sources`, otherwise that of the
    /// path's ingress interface or, if unknown, the destination of the packet.
    pub fn new(per_second: u32, sources: Sources, cx: &BuildCx<'_>) -> Self {
        let ingress = cx.from_port();
        Self {
            budgets: Budgets::new(per_second, cx.workers, xdpfwd_xsk::clock::cycles_per_second()),
            sources: Sources {
                v4: sources.v4.or_else(|| ingress?.ipv4()),
                v6: sources.v6.or_else(|| ingress?.ipv6()),
            },
        }
    }

    /// Turns a packet into an ICMP error and sends it from the ingress port. `now` is
    /// [`Cx::now`](crate::Cx::now).
    ///
    /// Returns false and leaves the packet unchanged if:
    /// - the rate limit of the packet's source prefix, or that of all prefixes, is reached;
    /// - no message may be sent about the packet, see [`ErrorMessage::about`];
    /// - the packet was decrypted on its path: a message would quote it in clear text;
    /// - the frame has too little headroom: 28 bytes for IPv4, 48 for IPv6.
    pub fn answer(&mut self, packet: &mut PacketMut<'_>, problem: Problem, now: u64) -> bool {
        let Some(source) = packet.meta.headers.source_ip(packet.frame) else { return false };
        let budget = if packet.meta.decrypted { None } else { self.budgets.find(source, now) };
        let Some(budget) = budget else { return false };
        if !rewrite(packet.frame, &packet.meta.headers, problem, &self.sources) {
            return false;
        }
        self.budgets.take(budget);
        packet.send_to(packet.meta.ingress);
        true
    }
}

/// Turns the frame into an ICMP error. Returns false and leaves it unchanged if the headroom is too
/// small or no message may be sent.
fn rewrite(frame: &mut Frame, headers: &Headers, problem: Problem, sources: &Sources) -> bool {
    let Some(message) = ErrorMessage::about(frame, headers, problem, sources) else { return false };
    if frame.prepend(message.front_len()).is_err() {
        return false;
    }
    let written = message.emit(frame);
    debug_assert!(written.is_ok(), "the message does not fit into the frame");
    frame.truncate(message.frame_len());
    true
}

#[cfg(test)]
mod tests;
