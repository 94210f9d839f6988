//! Selection of packets that pass unchanged (RFC 4301: BYPASS).

use super::values::Bypassed;
use xdpfwd_wire::{EtherType, Headers, IpProtocol, IpVersion, Status};

/// The kinds of packets that pass unchanged: the key `bypass`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bypass {
    arp: bool,
    nd: bool,
    ike: bool,
    not_ip: bool,
    unmatched: bool,
    /// Whether any of the kinds above is set.
    any: bool,
}

/// UDP port of IKE (RFC 7296, 2).
const IKE_PORT: u16 = 500;
/// UDP port that IKE and ESP share if a NAT is on the path (RFC 3948, 2.2).
const NAT_T_PORT: u16 = 4500;

/// ICMPv6 types of Neighbor Discovery, from router solicitation to redirect (RFC 4861, 4).
const ND_TYPES: std::ops::RangeInclusive<u8> = 133..=137;

impl Bypass {
    pub(super) fn new(kinds: &[Bypassed]) -> Self {
        let has = |kind| kinds.contains(&kind);
        Self {
            arp: has(Bypassed::Arp),
            nd: has(Bypassed::Nd),
            ike: has(Bypassed::Ike),
            not_ip: has(Bypassed::NotIp),
            unmatched: has(Bypassed::Unmatched),
            any: !kinds.is_empty(),
        }
    }

    /// Returns whether a packet's kind lets it pass unchanged, even if an SA matches. Not for the
    /// kind `unmatched`: see [`Self::passes_unmatched`].
    #[inline]
    pub(super) fn matches(&self, frame: &[u8], headers: &Headers) -> bool {
        self.any && self.matches_kind(frame, headers)
    }

    fn matches_kind(&self, frame: &[u8], headers: &Headers) -> bool {
        if headers.ip_version.is_none() {
            let is_arp = headers.ethertype == EtherType::ARP;
            return headers.status == Status::NotIp && (self.not_ip || self.arp && is_arp);
        }
        self.nd && is_nd(frame, headers) || self.ike && is_ike(frame, headers)
    }

    #[inline]
    pub(super) fn passes_unmatched(&self) -> bool {
        self.unmatched
    }
}

/// Returns whether this is a Neighbor Discovery message. Its hop limit must be 255: no router has
/// forwarded it (RFC 4861).
fn is_nd(frame: &[u8], headers: &Headers) -> bool {
    const HOP_LIMIT_OFFSET: usize = 7;
    let is_icmp = headers.ip_version == Some(IpVersion::V6)
        && headers.protocol == Some(IpProtocol::ICMPV6)
        && headers.fragment == xdpfwd_wire::Fragment::Whole;
    let was_not_forwarded = headers.l3(frame).get(HOP_LIMIT_OFFSET) == Some(&255);
    is_icmp
        && was_not_forwarded
        && headers.l4(frame).first().is_some_and(|kind| ND_TYPES.contains(kind))
}

fn is_ike(frame: &[u8], headers: &Headers) -> bool {
    if headers.protocol != Some(IpProtocol::UDP) || headers.status != Status::Parsed {
        return false;
    }
    let uses_port = |port: u16| headers.source_port == port || headers.destination_port == port;
    uses_port(IKE_PORT)
        || uses_port(NAT_T_PORT)
            && has_non_esp_marker(
                headers.l4(frame).get(xdpfwd_wire::udp::HEADER_LEN..).unwrap_or_default(),
            )
}

/// Returns whether a UDP payload starts with the marker of packets that are not ESP (RFC 3948,
/// 2.2).
pub(super) fn has_non_esp_marker(payload: &[u8]) -> bool {
    payload.first_chunk::<4>() == Some(&[0; 4])
}
