//! Selection of packets that pass unchanged (RFC 4301: BYPASS).

use std::net::IpAddr;

use super::selector::{End, Selector};
use super::state::Direction;
use super::values::Bypassed;
use xdpfwd_wire::{EtherType, Headers, IpProtocol, IpVersion, Status};

/// The kinds of packets that pass. IKE passes only between the endpoints of an SA. Of the IP
/// packets whose source is inside the selector of an SA, only Neighbor Discovery passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bypass {
    arp: bool,
    nd: bool,
    ike: bool,
    not_ip: bool,
    unmatched: bool,
    /// Whether any of the kinds above is set.
    any: bool,
    endpoints: Vec<Endpoints>,
    /// The selector prefixes of all SAs; `None` without any.
    claimed: Option<Selector>,
    /// The direction of the stage: `Out` for `esp-seal`.
    direction: Direction,
}

/// The outer addresses of an SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// `None` for any address.
    pub(super) source: Option<IpAddr>,
    pub(super) destination: IpAddr,
}

/// UDP port of IKE (RFC 7296, 2).
const IKE_PORT: u16 = 500;
/// UDP port that IKE and ESP share if a NAT is on the path (RFC 3948, 2.2).
const NAT_T_PORT: u16 = 4500;

/// Smaller values in the place of the Ethertype are the length of an LLC frame.
const MIN_ETHERTYPE: u16 = 0x600;

/// ICMPv6 types of Neighbor Discovery, from router solicitation to redirect (RFC 4861, 4).
const ND_TYPES: std::ops::RangeInclusive<u8> = 133..=137;

impl Bypass {
    /// `endpoints` and `selectors` are those of all SAs.
    pub(super) fn new<'s>(
        kinds: &[Bypassed],
        endpoints: impl Iterator<Item = Endpoints>,
        selectors: impl Iterator<Item = &'s Selector>,
        direction: Direction,
    ) -> Self {
        let has = |kind| kinds.contains(&kind);
        let claimed = Selector::union(selectors.filter(|selector| !selector.is_all()));
        Self {
            arp: has(Bypassed::Arp),
            nd: has(Bypassed::Nd),
            ike: has(Bypassed::Ike),
            not_ip: has(Bypassed::NotIp),
            unmatched: has(Bypassed::Unmatched),
            any: !kinds.is_empty(),
            endpoints: endpoints.collect(),
            claimed: (!claimed.is_all()).then_some(claimed),
            direction,
        }
    }

    /// Returns a warning if `ike` is configured, but no SA has endpoints, or an endpoint is inside
    /// a selector.
    pub(super) fn warning(&self) -> Option<String> {
        if !self.ike {
            return None;
        }
        if self.endpoints.is_empty() {
            return Some(
                "bypass = [\"ike\"]: no IKE packet passes, because no SA has an outer \
                 `destination`; set `destination`, or remove \"ike\""
                    .to_owned(),
            );
        }
        let claimed = self.claimed.as_ref()?;
        let addresses = self
            .endpoints
            .iter()
            .flat_map(|endpoints| endpoints.source.into_iter().chain([endpoints.destination]));
        let inside = addresses.into_iter().find(|address| claimed.contains_address(*address))?;
        Some(format!(
            "bypass = [\"ike\"]: {inside}, an endpoint of an SA, is inside the `selector` of an SA, \
             whose packets never pass unencrypted, so IKE can fail; use a selector without the \
             endpoints"
        ))
    }

    /// Returns whether a packet's kind lets it pass unchanged, even if an SA matches. For the
    /// kind `unmatched`, use [`Self::passes_unmatched`].
    #[inline]
    pub(super) fn matches(&self, frame: &[u8], headers: &Headers) -> bool {
        self.any && self.matches_kind(frame, headers)
    }

    fn matches_kind(&self, frame: &[u8], headers: &Headers) -> bool {
        if headers.ip_version.is_none() {
            let is_arp = headers.ethertype == EtherType::ARP;
            return headers.status == Status::NotIp
                && (self.arp && is_arp || self.not_ip && !self.may_hide_claimed(frame, headers));
        }
        self.nd && is_nd(frame, headers)
            || self.ike
                && is_ike(frame, headers, self.direction)
                && self.is_between_endpoints(frame, headers)
    }

    /// Returns whether packets that no SA matches can pass unchanged.
    pub(super) fn has_unmatched(&self) -> bool {
        self.unmatched
    }

    /// Returns whether a packet that no SA matches passes unchanged.
    #[inline]
    pub(super) fn passes_unmatched(&self, frame: &[u8], headers: &Headers) -> bool {
        self.unmatched && !self.is_claimed(frame, headers)
    }

    /// Returns whether a selector contains, or could contain, the packet's source.
    fn is_claimed(&self, frame: &[u8], headers: &Headers) -> bool {
        let Some(claimed) = &self.claimed else { return false };
        match headers.addresses(frame) {
            Some(addresses) => claimed.contains(addresses, End::Source),
            None => self.may_hide_claimed(frame, headers),
        }
    }

    fn is_between_endpoints(&self, frame: &[u8], headers: &Headers) -> bool {
        let Some(addresses) = headers.addresses(frame) else { return false };
        let is_of = |endpoints: &Endpoints| {
            endpoints.destination == addresses.destination()
                && endpoints.source.is_none_or(|source| source == addresses.source())
        };
        let is_claimed =
            |end| self.claimed.as_ref().is_some_and(|claimed| claimed.contains(addresses, end));
        self.endpoints.iter().any(is_of)
            && !is_claimed(End::Source)
            // The selectors of outbound SAs match destinations.
            && !(self.direction == Direction::Out && is_claimed(End::Destination))
    }

    /// Returns whether a frame without an IP header can carry an IP packet whose source is inside a
    /// selector.
    fn may_hide_claimed(&self, frame: &[u8], headers: &Headers) -> bool {
        self.claimed.is_some() && can_carry_ip(headers.ethertype.0, headers.l3(frame))
    }
}

/// Returns whether a frame of this type encapsulates IP packets, or frames with IP packets.
fn can_carry_ip(ethertype: u16, payload: &[u8]) -> bool {
    match ethertype {
        ..MIN_ETHERTYPE => can_llc_carry_ip(payload),
        // VLAN tags, also 802.1BR E-tags, VN-tags and 802.1CB redundancy tags.
        0x8100 | 0x88a8 | 0x9100 | 0x9200 | 0x9300 | 0x893f | 0x8926 | 0xf1c1 => true,
        // MPLS, PPPoE sessions, PPP, Ethernet in Ethernet, frame relay.
        0x8847 | 0x8848 | 0x8864 | 0x880b | 0x6558 | 0x6559 => true,
        // Provider backbone bridges, TRILL with and without fine-grained labels, FabricPath, NSH.
        0x88e7 | 0x22f3 | 0x893b | 0x8903 | 0x894f => true,
        // HSR, MACsec (which need not encrypt), batman-adv, 6LoWPAN, GeoNetworking.
        0x892f | 0x88e5 | 0x4305 | 0xa0ed | 0x8947 => true,
        _ => false,
    }
}

/// Like [`can_carry_ip`], for a frame with an LLC header: the SAP of IP, or of SNAP (RFC 1042) with
/// an Ethertype. Only the destination SAP counts, without its group bit, because receivers ignore
/// the source SAP.
fn can_llc_carry_ip(payload: &[u8]) -> bool {
    const IP: u8 = 0x06;
    const SNAP: u8 = 0xaa;
    /// Control field of unnumbered information. With other values, the header length differs.
    const UI: u8 = 3;
    let [dsap, after_dsap @ ..] = payload else { return false };
    match dsap & !1 {
        IP => true,
        SNAP => match after_dsap {
            // The organization IEEE 802.1, whose types are bridged frames (RFC 2684).
            [_, UI, 0x00, 0x80, 0xc2, ..] => true,
            [_, UI, _, _, _, high, low, rest @ ..] => {
                let ethertype = u16::from_be_bytes([*high, *low]);
                // In SNAP, a small value is a protocol number that the organization assigns, not a
                // length.
                is_ip(ethertype) || ethertype >= MIN_ETHERTYPE && can_carry_ip(ethertype, rest)
            }
            _ => true,
        },
        _ => false,
    }
}

fn is_ip(ethertype: u16) -> bool {
    [EtherType::IPV4.0, EtherType::IPV6.0].contains(&ethertype)
}

/// Returns whether a packet is a Neighbor Discovery message that no router has forwarded: its hop
/// limit is 255 (RFC 4861). No extension header may come before the message, so that a routing
/// header cannot direct it elsewhere.
fn is_nd(frame: &[u8], headers: &Headers) -> bool {
    const NEXT_HEADER_OFFSET: usize = 6;
    const HOP_LIMIT_OFFSET: usize = 7;
    const CODE: u8 = 0;
    let l3 = headers.l3(frame);
    let is_icmp = headers.ip_version == Some(IpVersion::V6)
        && headers.protocol == Some(IpProtocol::ICMPV6)
        && headers.fragment == xdpfwd_wire::Fragment::Whole
        && l3.get(NEXT_HEADER_OFFSET) == Some(&IpProtocol::ICMPV6.0);
    let was_not_forwarded = l3.get(HOP_LIMIT_OFFSET) == Some(&255);
    is_icmp
        && was_not_forwarded
        && matches!(headers.l4(frame), [kind, CODE, ..] if ND_TYPES.contains(kind))
}

/// Returns whether a packet is an IKE message to (inbound) or from (outbound) an IKE port of this
/// end. The port of the peer does not count: a NAT can change it, and a sender can choose it to
/// reach any port of this end.
fn is_ike(frame: &[u8], headers: &Headers, direction: Direction) -> bool {
    if headers.protocol != Some(IpProtocol::UDP) || headers.status != Status::Parsed {
        return false;
    }
    let own_port = match direction {
        Direction::In => headers.destination_port,
        Direction::Out => headers.source_port,
    };
    let payload = || headers.l4(frame).get(xdpfwd_wire::udp::HEADER_LEN..).unwrap_or_default();
    own_port == IKE_PORT || own_port == NAT_T_PORT && has_non_esp_marker(payload())
}

/// Returns whether a UDP payload starts with the marker of packets that are not ESP (RFC 3948,
/// 2.2).
pub(super) fn has_non_esp_marker(payload: &[u8]) -> bool {
    payload.first_chunk::<4>() == Some(&[0; 4])
}
