//! Random header stacks ([`xdpfwd_wire::HeaderStack`]).

use xdpfwd_wire::gtpu::{self, Extension};
use xdpfwd_wire::{Addresses, EtherType, Header, IpProtocol, IpVersion, VlanId};
use xdpfwd_wire::{ethernet, icmp, ipv4, ipv6, tcp, udp, vlan};

use crate::case::Random;
use crate::tunnel::container;

/// The headers of a stack, and its payload.
pub(super) type StackCase<'a> = (Vec<Header<'a>>, Vec<u8>);

pub(super) fn extension(random: &mut Random) -> Extension<'static> {
    Extension::PduSessionContainer(container(random))
}

/// Returns random headers, with up to two VLAN tags and optionally a GTP-U tunnel, and a payload.
/// Fields that `HeaderStack` must fill in, such as lengths, have random values too.
pub(super) fn stack<'a>(
    random: &mut Random,
    containers: &'a [[Extension<'static>; 1]],
) -> StackCase<'a> {
    let ethertype = |random: &mut Random| EtherType(0x1234 + random.below(2) as u16);
    let (destination, source) = (random.mac(), random.mac());
    let ethernet = ethernet::Repr { destination, source, ethertype: ethertype(random) };
    let mut headers = vec![ethernet.into()];
    for _ in 0..random.below(4).saturating_sub(1) {
        let id = VlanId::new(random.below(4096) as u16).unwrap();
        let (priority, drop_eligible) = (random.below(8) as u8, random.bool());
        let ethertype = ethertype(random);
        headers.push(vlan::Repr { id, priority, drop_eligible, ethertype }.into());
    }
    if random.bool() {
        let addresses = ip_headers(random, &mut headers);
        let (source_port, destination_port) = (gtpu::PORT, gtpu::PORT);
        let udp = udp::Repr { source_port, destination_port, payload_len: random.u16() };
        headers.push(udp_header(random, addresses, udp));
        let extensions = random.option(|random| &containers[random.below(8) as usize][..]);
        headers.push(Header::Gtpu(gtpu::Repr {
            teid: random.u32(),
            sequence_number: random.option(Random::u16),
            n_pdu_number: random.option(Random::u8),
            extensions: extensions.unwrap_or_default(),
            payload_len: random.u16(),
            ..gtpu::Repr::default()
        }));
    }
    let addresses = ip_headers(random, &mut headers);
    let (source_port, destination_port) = (random.port(), random.port());
    let payload_len = random.u16();
    headers.push(match random.below(3) {
        0 => {
            let flags = tcp::Flags(random.u8());
            let options = if random.bool() { &[2, 4, 5, 0xb4][..] } else { &[] };
            let (sequence, window) = (random.u32(), random.u16());
            let repr = tcp::Repr { sequence, flags, window, options, ..tcp::Repr::default() };
            Header::Tcp(tcp::Repr { source_port, destination_port, payload_len, ..repr })
        }
        1 => {
            let udp = udp::Repr { source_port, destination_port, payload_len };
            udp_header(random, addresses, udp)
        }
        _ => {
            let version = match addresses {
                Addresses::V4 { .. } => IpVersion::V4,
                Addresses::V6 { .. } => IpVersion::V6,
            };
            icmp::Repr::echo_request(version, random.u16(), random.u16(), payload_len).into()
        }
    });
    (headers, random.data())
}

/// Adds one or more IP headers. Returns the addresses of the last header.
fn ip_headers(random: &mut Random, headers: &mut Vec<Header<'_>>) -> Addresses {
    loop {
        let addresses = random.addresses();
        let (protocol, payload_len) = (IpProtocol(200 + random.below(9) as u8), random.u16());
        headers.push(match addresses {
            Addresses::V4 { source, destination } => {
                let repr = ipv4::Repr { source, destination, payload_len, ..Default::default() };
                Header::Ipv4(ipv4::Repr { ttl: random.u8(), protocol, ..repr })
            }
            Addresses::V6 { source, destination } => {
                let repr = ipv6::Repr { source, destination, payload_len, ..Default::default() };
                Header::Ipv6(ipv6::Repr { next_header: protocol, ..repr })
            }
        });
        if random.below(4) != 0 {
            return addresses;
        }
    }
}

/// Returns a UDP header. Over IPv4, it is without a checksum with a probability of 1/4.
fn udp_header(random: &mut Random, addresses: Addresses, repr: udp::Repr) -> Header<'static> {
    match addresses {
        Addresses::V4 { .. } if random.below(4) == 0 => Header::UdpWithoutChecksum(repr),
        _ => Header::Udp(repr),
    }
}

/// Returns scapy's names of the layers of a stack with this payload.
pub(super) fn stack_layers(headers: &[Header<'_>], payload: &[u8]) -> Vec<&'static str> {
    let mut layers = Vec::new();
    let mut is_ipv6 = false;
    for (index, header) in headers.iter().enumerate() {
        let is_outer_tag = matches!(headers.get(index + 1), Some(Header::Vlan(_)));
        layers.push(match header {
            Header::Ethernet(_) => "Ether",
            Header::Vlan(_) if is_outer_tag => "Dot1AD",
            Header::Vlan(_) => "Dot1Q",
            Header::Ipv4(_) => "IP",
            Header::Ipv6(_) => "IPv6",
            Header::Tcp(_) => "TCP",
            Header::Icmp(_) if is_ipv6 => "ICMPv6EchoRequest",
            Header::Icmp(_) => "ICMP",
            Header::Gtpu(_) => "GTP_U_Header",
            _ => "UDP",
        });
        is_ipv6 = matches!(header, Header::Ipv6(_));
        if matches!(header, Header::Gtpu(repr) if !repr.extensions.is_empty()) {
            layers.push("GTPPDUSessionContainer");
        }
    }
    // In scapy, the data of an ICMPv6 echo is a field of the message.
    if !payload.is_empty() && layers.last() != Some(&"ICMPv6EchoRequest") {
        layers.push("Raw");
    }
    layers
}
