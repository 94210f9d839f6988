//! ICMP errors that stages send to the source of a packet.

use xdpfwd_wire::Headers;
use xdpfwd_wire::icmp::{ErrorMessage, Problem, Sources};
use xdpfwd_xsk::Frame;

use crate::plan::BuildCx;
use crate::view::PacketMut;

/// A rate-limited sender of ICMP errors for a stage of one worker.
#[derive(Clone, Debug)]
pub struct IcmpErrors {
    bucket: TokenBucket,
    sources: Sources,
}

impl IcmpErrors {
    /// Creates a sender for one worker. `per_second` limits the messages of all workers together;
    /// each worker may send an equal share, and at least one per second unless `per_second` is 0.
    /// The source address is that in `sources`, otherwise that of the path's ingress interface or,
    /// if unknown, the destination address of the packet that the message answers.
    pub fn new(per_second: u32, sources: Sources, cx: &BuildCx<'_>) -> Self {
        let ingress = cx.from_port();
        Self {
            bucket: TokenBucket::new(
                per_second,
                cx.workers,
                xdpfwd_xsk::clock::cycles_per_second(),
            ),
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
    /// - the rate limit is reached;
    /// - no message may be sent about the packet, see [`ErrorMessage::about`];
    /// - the packet was decrypted on its path: a message would quote it in clear text;
    /// - the frame has too little headroom: 28 bytes for IPv4, 48 for IPv6.
    pub fn answer(&mut self, packet: &mut PacketMut<'_>, problem: Problem, now: u64) -> bool {
        let may_send = !packet.meta.decrypted && self.bucket.has_token(now);
        if !may_send || !rewrite(packet.frame, &packet.meta.headers, problem, &self.sources) {
            return false;
        }
        self.bucket.take();
        packet.send_to(packet.meta.ingress);
        true
    }
}

/// Returns false and leaves the frame unchanged if the headroom is too small or no message may be
/// sent.
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

/// A token bucket for the messages of one worker, full at first.
///
/// Differs from the rate limits of the stage `filter`: each worker has its own bucket, and the rate
/// may be 0.
#[derive(Clone, Debug)]
struct TokenBucket {
    tokens: f64,
    max_tokens: f64,
    tokens_per_cycle: f64,
    /// Time of the last refill, in cycles.
    last_refill: u64,
}

impl TokenBucket {
    /// Creates the bucket of one of `workers` workers. Its rate is an equal share of `per_second`,
    /// and at least one per second unless `per_second` is 0. The bucket holds the messages of a
    /// tenth of a second, but at least one.
    fn new(per_second: u32, workers: usize, cycles_per_second: f64) -> Self {
        if per_second == 0 {
            return Self { tokens: 0.0, max_tokens: 0.0, tokens_per_cycle: 0.0, last_refill: 0 };
        }
        let share = (f64::from(per_second) / workers.max(1) as f64).max(1.0);
        let max_tokens = (share / 10.0).max(1.0);
        let tokens_per_cycle = share / cycles_per_second;
        Self { tokens: max_tokens, max_tokens, tokens_per_cycle, last_refill: 0 }
    }

    /// Refills the bucket for the time since the last call, and returns whether it has a token. If
    /// the clock has jumped back, adds no token and continues from the new time.
    fn has_token(&mut self, now_cycles: u64) -> bool {
        let elapsed = now_cycles.saturating_sub(self.last_refill);
        self.last_refill = now_cycles;
        self.tokens = (self.tokens + elapsed as f64 * self.tokens_per_cycle).min(self.max_tokens);
        self.tokens >= 1.0
    }

    fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests;
