//! What is too large for the tunnel goes back to its sender as ICMP, which lowers its path MTU, and how often that may be.

use std::net::{Ipv4Addr, Ipv6Addr};

use xdpfwd_xsk::Frame;

use xdpfwd_wire::checksum::Sum;
use xdpfwd_wire::{Addresses, Fragment, Headers, IpProtocol, MacAddr, ethernet, icmp, ipv4, ipv6};

/// Who says so. Without an address of the packet's version it is the packet's destination.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sources {
    pub(super) v4: Option<Ipv4Addr>,
    pub(super) v6: Option<Ipv6Addr>,
}

/// Largest message over IPv4 (RFC 1812, 4.3.2.3), with its IP header.
const MOST_V4: usize = 576;
/// The same over IPv6 (RFC 4443, 2.4 (c)): the MTU that every link has.
const MOST_V6: usize = 1280;
/// Type, code, checksum; the MTU in the lower half of the second word (RFC 1191, 4) or in all of it (RFC 4443, 3.2), which
/// is one and the same below 65536.
const ICMP_LEN: usize = 8;

/// Rewrites the frame into "fragmentation needed and DF set" (RFC 792, RFC 1191) or "packet too big" (RFC 4443, 3.2) with
/// this MTU, addressed to its sender, in its own memory: MAC addresses exchanged, VLAN tags as they are, and of the packet
/// as much quoted as may be. `headers` are those of the frame. The DF bit of an IPv4 packet is not looked at.
///
/// `false`, and the frame as it was, if no message may be sent about it (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7; RFC 4443,
/// 2.4 (e)):
/// - an ICMP error, a Redirect of IPv6, ICMP whose type cannot be read, extension headers that hide whether it is one;
/// - a fragment that is not the first;
/// - its source address names no single host, or its source MAC address is a group's;
/// - over IPv4, its destination address names no single host, or it was sent to a MAC address of a group. Over IPv6
///   "packet too big" is sent to who sent a multicast, but then `sources` must have an address;
///
/// or if there is nothing to say: the packet is no larger than the MTU that the message would have, which over IPv6 is
/// never below 1280; or if there is no room: the headers need 28 or 48 bytes of headroom.
pub(super) fn answer(frame: &mut Frame, headers: &Headers, mtu: u16, sources: &Sources) -> bool {
    try_answer(frame, headers, mtu, sources).is_some()
}

fn try_answer(frame: &mut Frame, headers: &Headers, mtu: u16, sources: &Sources) -> Option<()> {
    let ethernet = ethernet::Frame::new_checked(frame.get(..headers.l2_len())?).ok()?;
    let (to, from) = (ethernet.source(), individual(ethernet.destination()));
    let addresses = addresses(frame, headers, sources)?;
    let packet = headers.l3(frame);

    // All that may fail goes before the first change.
    let mut front = [0; ipv6::HEADER_LEN + ICMP_LEN];
    let (ip_len, most, kind, code, mtu) = match addresses {
        Addresses::V4 { .. } => (ipv4::HEADER_LEN, MOST_V4, 3, 4, mtu),
        Addresses::V6 { .. } => (ipv6::HEADER_LEN, MOST_V6, 2, 0, mtu.max(MOST_V6 as u16)),
    };
    if packet.len() <= usize::from(mtu) {
        return None;
    }
    let front = &mut front[..ip_len + ICMP_LEN];
    let quoted = &packet[..packet.len().min(most - front.len())];
    // At most `most`.
    let message_len = (ICMP_LEN + quoted.len()) as u16;
    let sum = match addresses {
        Addresses::V4 { source, destination } => {
            let ip = ipv4::Repr {
                dscp: 0x30, // internetwork control: precedence 6 (RFC 1812, 4.3.2.5)
                protocol: IpProtocol::ICMP,
                source,
                destination,
                payload_len: message_len,
                ..ipv4::Repr::default()
            };
            ip.emit(front).ok()?;
            Sum::new()
        }
        Addresses::V6 { source, destination } => {
            let ip = ipv6::Repr {
                next_header: IpProtocol::ICMPV6,
                source,
                destination,
                payload_len: message_len,
                ..ipv6::Repr::default()
            };
            ip.emit(front).ok()?;
            Sum::pseudo_header(addresses, IpProtocol::ICMPV6, u32::from(message_len))
        }
    };
    let [mtu_high, mtu_low] = mtu.to_be_bytes();
    front[ip_len..].copy_from_slice(&[kind, code, 0, 0, 0, 0, mtu_high, mtu_low]);
    let checksum = sum.with(&front[ip_len..]).with(quoted).checksum();
    front[ip_len + 2..ip_len + 4].copy_from_slice(&checksum.to_be_bytes());

    let (l2_len, quoted_len) = (headers.l2_len(), quoted.len());
    frame.prepend(front.len()).ok()?;
    frame.copy_within(front.len()..front.len() + l2_len, 0);
    frame[l2_len..l2_len + front.len()].copy_from_slice(front);
    frame.truncate(l2_len + front.len() + quoted_len);
    let mut ethernet = ethernet::Frame::new_checked(&mut frame[..]).ok()?;
    ethernet.set_destination(to);
    ethernet.set_source(from);
    Some(())
}

/// From whom to whom a message about this packet goes; `None` if there may be none.
fn addresses(frame: &[u8], headers: &Headers, sources: &Sources) -> Option<Addresses> {
    let ethernet = ethernet::Frame::new_checked(frame).ok()?;
    if headers.fragment == Fragment::Later || ethernet.source().is_multicast() {
        return None;
    }
    let protocol = headers.protocol?;
    let icmp_type = || icmp::Packet::new_checked(headers.l4(frame)).ok().map(|packet| packet.kind());
    match headers.addresses(frame)? {
        Addresses::V4 { source, destination } => {
            let to_group = ethernet.destination().is_multicast() || !is_host_v4(destination);
            // Unreachable, source quench, redirect, time exceeded, parameter problem.
            let is_error = protocol == IpProtocol::ICMP && matches!(icmp_type()?, 3 | 4 | 5 | 11 | 12);
            (!to_group && !is_error && is_host_v4(source))
                .then(|| Addresses::V4 { source: sources.v4.unwrap_or(destination), destination: source })
        }
        Addresses::V6 { source, destination } => {
            // Errors are the lower half; 137 is a Redirect.
            let is_error = protocol == IpProtocol::ICMPV6 && matches!(icmp_type()?, 0..128 | 137);
            let says_so = sources.v6.or(Some(destination).filter(is_host_v6))?;
            (!is_error && is_host_v6(&source)).then_some(Addresses::V6 { source: says_so, destination: source })
        }
    }
}

/// Whether it may name a single host: not "this network", loopback, multicast, reserved or broadcast. What is the broadcast
/// address of some subnet is not to be known here.
fn is_host_v4(address: Ipv4Addr) -> bool {
    !matches!(address.octets()[0], 0 | 127 | 224..)
}

/// The same of IPv6: not unspecified, loopback or multicast.
fn is_host_v6(address: &Ipv6Addr) -> bool {
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The address a frame is sent from that answers one to this address. A group cannot send: it is made a locally administered
/// address of a station.
fn individual(address: MacAddr) -> MacAddr {
    let [first, rest @ ..] = address.0;
    if !address.is_multicast() {
        return address;
    }
    let [b, c, d, e, f] = rest;
    MacAddr([first & !0x01 | 0x02, b, c, d, e, f])
}

/// How many messages a worker may send: a token bucket that begins full.
///
/// Not one of the filter's limits, though those are shared between workers: they count in units of a rule, and cannot be 0.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    tokens: f64,
    most: f64,
    per_cycle: f64,
    last: u64,
}

impl Rate {
    /// An equal share of `per_second` for each of `workers`, but at least one message a second if there are to be any; in a
    /// burst a tenth of a second's, and at least one.
    pub(super) fn new(per_second: u32, workers: usize, cycles_per_second: f64) -> Self {
        if per_second == 0 {
            return Self { tokens: 0.0, most: 0.0, per_cycle: 0.0, last: 0 };
        }
        let share = (f64::from(per_second) / workers.max(1) as f64).max(1.0);
        let most = (share / 10.0).max(1.0);
        Self { tokens: most, most, per_cycle: share / cycles_per_second, last: 0 }
    }

    /// Whether one more may be sent at this time. A clock that goes back brings nothing, and counts on from there.
    pub(super) fn has_one(&mut self, now_cycles: u64) -> bool {
        let elapsed = now_cycles.saturating_sub(self.last);
        self.last = now_cycles;
        self.tokens = (self.tokens + elapsed as f64 * self.per_cycle).min(self.most);
        self.tokens >= 1.0
    }

    /// One is sent.
    pub(super) fn take(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

#[cfg(test)]
mod tests;
