//! Compares frames that [`xdpfwd_wire`] emits with scapy, which parses every field and rebuilds the
//! frame with its own lengths and checksums, and for stacks with its own types.

mod scapy;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use serde_json::{Value, json};
use xdpfwd_wire::gtpu::{
    self, DownlinkInformation, ErrorIndication, Extension, PduSessionContainer, UplinkInformation,
    UplinkTimestamps,
};
use xdpfwd_wire::{Addresses, EtherType, Header, HeaderStack, IpProtocol, IpVersion, MacAddr};
use xdpfwd_wire::{VlanId, arp, ethernet, icmp, ipv4, ipv6, tcp, udp, vlan};

const FRAMES: usize = 500;

#[test]
fn scapy_reads_and_rebuilds_emitted_frames() {
    let mut random = Random(20_240_229);
    let cases: Vec<Case> = (0..FRAMES).map(|_| frame(&mut random)).collect();
    let input: String = cases.iter().map(|case| hex(&case.bytes) + "\n").collect();
    let answers = scapy::run("emit_against_scapy.py", "-", &input);
    assert_eq!(answers.len(), FRAMES);
    assert_rebuild_detects_wrong_checksums(&cases);
    for (case, answer) in cases.iter().zip(&answers) {
        let frame = hex(&case.bytes);
        assert_eq!(answer["layers"], Value::from(case.layers.clone()), "{frame}");
        assert_eq!(answer["rebuilt"], frame, "{answer}");
    }
    // A generator that omits a layer could pass every comparison.
    for layer in [
        "ARP",
        "Dot1AD",
        "Dot1Q",
        "GTPErrorIndication",
        "GTPPDUSessionContainer",
        "GTP_U_Header",
        "ICMP",
        "ICMPv6EchoReply",
        "ICMPv6EchoRequest",
        "IPv6ExtHdrDestOpt",
        "TCP",
    ] {
        let has_layer = |case: &&Case| case.layers.iter().any(|fields| fields["layer"] == layer);
        let count = cases.iter().filter(has_layer).count();
        assert!(count > 10, "only {count} frames have the layer {layer}");
    }
}

#[test]
fn scapy_reads_and_rebuilds_stacks() {
    let mut random = Random(20_261_130);
    let containers: Vec<_> = (0..8).map(|_| [extension(&mut random)]).collect();
    let cases: Vec<_> = (0..FRAMES).map(|_| stack(&mut random, &containers)).collect();
    let frames = cases.iter().map(|(headers, payload)| {
        let frame = HeaderStack(headers).packet(payload).unwrap();
        hex(&frame)
    });
    let frames: Vec<String> = frames.collect();
    let input: String = frames.iter().map(|frame| frame.clone() + "\n").collect();
    let answers = scapy::run("emit_against_scapy.py", "types", &input);
    assert_eq!(answers.len(), FRAMES);
    let mut counts = BTreeMap::new();
    for (((headers, payload), frame), answer) in cases.iter().zip(&frames).zip(&answers) {
        let layers = answer["layers"].as_array().unwrap().iter();
        let layers: Vec<&str> = layers.map(|fields| fields["layer"].as_str().unwrap()).collect();
        let expected = stack_layers(headers, payload);
        assert_eq!(layers, expected, "{frame}");
        assert_eq!(answer["rebuilt"], *frame, "{answer}");
        layers.windows(2).for_each(|pair| *counts.entry(pair.join(" ")).or_insert(0) += 1);
    }
    // Each type that a stack derives from the next header.
    for pair in [
        "Dot1AD Dot1Q",
        "Dot1Q IP",
        "Dot1Q IPv6",
        "Ether Dot1AD",
        "Ether Dot1Q",
        "Ether IP",
        "Ether IPv6",
        "GTP_U_Header IP",
        "GTP_U_Header IPv6",
        "IP ICMP",
        "IP IP",
        "IP IPv6",
        "IP TCP",
        "IP UDP",
        "IPv6 ICMPv6EchoRequest",
        "IPv6 IP",
        "IPv6 IPv6",
        "IPv6 TCP",
        "IPv6 UDP",
    ] {
        let count = counts.get(pair).copied().unwrap_or(0);
        assert!(count > 10, "only {count} frames have the layers {pair}");
    }
}

/// The headers of a stack, and a payload.
type StackCase<'a> = (Vec<Header<'a>>, Vec<u8>);

/// Returns an extension header with a PDU session container.
fn extension(random: &mut Random) -> Extension<'static> {
    Extension::PduSessionContainer(container(random))
}

/// Returns a stack with random values in the fields that it fills.
fn stack<'a>(random: &mut Random, containers: &'a [[Extension<'static>; 1]]) -> StackCase<'a> {
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

/// Adds one IP header or two, and returns the addresses of the last.
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

/// Returns the header, over IPv4 sometimes without a checksum.
fn udp_header(random: &mut Random, addresses: Addresses, repr: udp::Repr) -> Header<'static> {
    match addresses {
        Addresses::V4 { .. } if random.below(4) == 0 => Header::UdpWithoutChecksum(repr),
        _ => Header::Udp(repr),
    }
}

/// Returns scapy's names of the layers of a stack.
fn stack_layers(headers: &[Header<'_>], payload: &[u8]) -> Vec<&'static str> {
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
    // The data of an echo is a field of the message.
    if !payload.is_empty() && layers.last() != Some(&"ICMPv6EchoRequest") {
        layers.push("Raw");
    }
    layers
}

/// Asserts that scapy rebuilds another frame from a TCP segment whose last byte was changed.
fn assert_rebuild_detects_wrong_checksums(cases: &[Case]) {
    let has_tcp = |case: &&Case| case.layers.iter().any(|fields| fields["layer"] == "TCP");
    let mut frame = cases.iter().find(has_tcp).unwrap().bytes.clone();
    *frame.last_mut().unwrap() ^= 1;
    let answers = scapy::run("emit_against_scapy.py", "-", &hex(&frame));
    assert_ne!(answers[0]["rebuilt"], hex(&frame), "a wrong checksum passed");
}

/// Bytes, and the layers that scapy must read in them.
struct Case {
    bytes: Vec<u8>,
    layers: Vec<Value>,
}

impl Case {
    /// Returns a case of raw bytes.
    fn raw(bytes: Vec<u8>) -> Case {
        let layers = match bytes.is_empty() {
            true => Vec::new(),
            false => vec![json!({ "layer": "Raw", "load": hex(&bytes) })],
        };
        Case { bytes, layers }
    }

    /// Returns `header`, which scapy reads as `fields`, with this case behind it.
    fn behind(self, header: Vec<u8>, fields: Value) -> Case {
        let mut layers = vec![fields];
        layers.extend(self.layers);
        Case { bytes: [header, self.bytes].concat(), layers }
    }
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn bool(&mut self) -> bool {
        self.below(2) == 0
    }

    fn u8(&mut self) -> u8 {
        self.next() as u8
    }

    fn u16(&mut self) -> u16 {
        self.next() as u16
    }

    fn u32(&mut self) -> u32 {
        self.next() as u32
    }

    fn option<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.bool().then(|| value(self))
    }

    fn data(&mut self) -> Vec<u8> {
        (0..self.below(40)).map(|_| self.u8()).collect()
    }

    /// Returns a port that scapy binds no protocol to.
    fn port(&mut self) -> u16 {
        40_000 + self.below(1000) as u16
    }

    fn mac(&mut self) -> MacAddr {
        MacAddr([2, self.u8(), self.u8(), self.u8(), self.u8(), self.u8()])
    }

    fn v4(&mut self) -> Ipv4Addr {
        self.u32().into()
    }

    fn v6(&mut self) -> Ipv6Addr {
        (u128::from(self.next()) << 64 | u128::from(self.next())).into()
    }

    fn addresses(&mut self) -> Addresses {
        if self.bool() {
            Addresses::V4 { source: self.v4(), destination: self.v4() }
        } else {
            Addresses::V6 { source: self.v6(), destination: self.v6() }
        }
    }
}

fn frame(random: &mut Random) -> Case {
    let (mut ethertype, mut case) = match random.below(20) {
        0 => (EtherType::ARP, arp_message(random)),
        1..8 => packet(random, tunnel_payload),
        _ => packet(random, upper),
    };
    let tags: &[EtherType] = match random.below(4) {
        0 => &[EtherType::SERVICE_VLAN, EtherType::VLAN],
        1 => &[EtherType::VLAN],
        _ => &[],
    };
    for tag in tags.iter().rev() {
        let repr = vlan::Repr {
            id: VlanId::new(random.below(4096) as u16).unwrap(),
            priority: random.below(8) as u8,
            drop_eligible: random.bool(),
            ethertype,
        };
        let mut header = vec![0xee; repr.header_len()];
        repr.emit(&mut header).unwrap();
        let fields = json!({
            "layer": if *tag == EtherType::VLAN { "Dot1Q" } else { "Dot1AD" },
            "vlan": repr.id.get(),
            "prio": repr.priority,
            "id": u8::from(repr.drop_eligible),
            "type": ethertype.0,
        });
        case = case.behind(header, fields);
        ethertype = *tag;
    }
    let repr = ethernet::Repr { destination: random.mac(), source: random.mac(), ethertype };
    let mut header = vec![0xee; repr.header_len()];
    repr.emit(&mut header).unwrap();
    let fields = json!({
        "layer": "Ether",
        "dst": repr.destination.to_string(),
        "src": repr.source.to_string(),
        "type": ethertype.0,
    });
    case.behind(header, fields)
}

fn arp_message(random: &mut Random) -> Case {
    let request = arp::Repr::request(random.mac(), random.v4(), random.v4());
    let repr = if random.bool() { request } else { request.reply(random.mac()) };
    let mut message = vec![0xee; repr.buffer_len()];
    repr.emit(&mut message).unwrap();
    let fields = json!({
        "layer": "ARP",
        "op": repr.operation.0,
        "hwsrc": repr.sender_mac.to_string(),
        "psrc": repr.sender_ip.to_string(),
        "hwdst": repr.target_mac.to_string(),
        "pdst": repr.target_ip.to_string(),
    });
    Case::raw(Vec::new()).behind(message, fields)
}

/// Returns an IP packet with a payload that `upper` makes for its addresses.
fn packet(
    random: &mut Random,
    upper: fn(&mut Random, Addresses) -> (IpProtocol, Case),
) -> (EtherType, Case) {
    let addresses = random.addresses();
    let (protocol, case) = upper(random, addresses);
    match addresses {
        Addresses::V4 { source, destination } => {
            let repr = ipv4::Repr {
                dscp: random.below(64) as u8,
                ecn: random.below(4) as u8,
                ident: random.u16(),
                dont_fragment: random.bool(),
                ttl: random.u8(),
                protocol,
                source,
                destination,
                payload_len: case.bytes.len() as u16,
            };
            let mut header = vec![0xee; repr.header_len()];
            repr.emit(&mut header).unwrap();
            let fields = json!({
                "layer": "IP",
                "src": source.to_string(),
                "dst": destination.to_string(),
                "tos": repr.dscp << 2 | repr.ecn,
                "id": repr.ident,
                "flags": u8::from(repr.dont_fragment) << 1,
                "ttl": repr.ttl,
                "proto": protocol.0,
                "len": repr.buffer_len(),
            });
            (EtherType::IPV4, case.behind(header, fields))
        }
        Addresses::V6 { source, destination } => {
            let (next_header, case) = options(random, protocol, case);
            let repr = ipv6::Repr {
                traffic_class: random.u8(),
                flow_label: random.u32() & 0x000f_ffff,
                next_header,
                hop_limit: random.u8(),
                source,
                destination,
                payload_len: case.bytes.len() as u16,
            };
            let mut header = vec![0xee; repr.header_len()];
            repr.emit(&mut header).unwrap();
            let fields = json!({
                "layer": "IPv6",
                "src": source.to_string(),
                "dst": destination.to_string(),
                "tc": repr.traffic_class,
                "fl": repr.flow_label,
                "nh": next_header.0,
                "hlim": repr.hop_limit,
                "plen": repr.payload_len,
            });
            (EtherType::IPV6, case.behind(header, fields))
        }
    }
}

/// Returns the payload of an IPv6 packet, with destination options in front of some.
fn options(random: &mut Random, protocol: IpProtocol, case: Case) -> (IpProtocol, Case) {
    if random.below(4) != 0 {
        return (protocol, case);
    }
    let header = ipv6::ExtensionHeader {
        kind: IpProtocol::DESTINATION_OPTIONS,
        next_header: protocol,
        content: &[1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], // PadN
    };
    let mut bytes = vec![0xee; header.header_len()];
    header.emit(&mut bytes).unwrap();
    let fields = json!({ "layer": "IPv6ExtHdrDestOpt", "nh": protocol.0 });
    (header.kind, case.behind(bytes, fields))
}

fn upper(random: &mut Random, addresses: Addresses) -> (IpProtocol, Case) {
    match random.below(3) {
        0 => (IpProtocol::TCP, tcp_segment(random, addresses)),
        1 => {
            let (ports, payload) = ((random.port(), random.port()), Case::raw(random.data()));
            (IpProtocol::UDP, udp_datagram(random, addresses, ports, payload))
        }
        _ => echo(random, addresses),
    }
}

fn tcp_segment(random: &mut Random, addresses: Addresses) -> Case {
    let options: [&[u8]; 4] = [
        &[],
        &[2, 4, 5, 0xb4],
        &[2, 4, 5, 0xb4, 1, 3, 3, 7],
        &[1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8],
    ];
    let payload = Case::raw(random.data());
    let repr = tcp::Repr {
        source_port: random.port(),
        destination_port: random.port(),
        sequence: random.u32(),
        acknowledgment: random.u32(),
        flags: tcp::Flags(random.u8()),
        window: random.u16(),
        urgent: random.u16(),
        options: options[random.below(4) as usize],
        payload_len: payload.bytes.len() as u16,
    };
    let mut segment = [&vec![0xee; repr.header_len()][..], &payload.bytes].concat();
    repr.emit_with_checksum(&mut segment, addresses).unwrap();
    let fields = json!({
        "layer": "TCP",
        "sport": repr.source_port,
        "dport": repr.destination_port,
        "seq": repr.sequence,
        "ack": repr.acknowledgment,
        "flags": repr.flags.0,
        "window": repr.window,
        "urgptr": repr.urgent,
        "dataofs": repr.header_len() / 4,
    });
    segment.truncate(repr.header_len());
    payload.behind(segment, fields)
}

fn udp_datagram(
    random: &mut Random,
    addresses: Addresses,
    (source_port, destination_port): (u16, u16),
    payload: Case,
) -> Case {
    let payload_len = payload.bytes.len() as u16;
    let repr = udp::Repr { source_port, destination_port, payload_len };
    let mut datagram = [&vec![0xee; repr.header_len()][..], &payload.bytes].concat();
    let may_omit = matches!(addresses, Addresses::V4 { .. });
    if may_omit && random.below(4) == 0 {
        repr.emit(&mut datagram).unwrap();
    } else {
        repr.emit_with_checksum(&mut datagram, addresses).unwrap();
    }
    let fields = json!({
        "layer": "UDP",
        "sport": source_port,
        "dport": destination_port,
        "len": repr.buffer_len(),
    });
    datagram.truncate(repr.header_len());
    payload.behind(datagram, fields)
}

fn echo(random: &mut Random, addresses: Addresses) -> (IpProtocol, Case) {
    let (ident, sequence) = (random.u16(), random.u16());
    let payload = random.data();
    let payload_len = payload.len() as u16;
    let (version, protocol) = match addresses {
        Addresses::V4 { .. } => (IpVersion::V4, IpProtocol::ICMP),
        Addresses::V6 { .. } => (IpVersion::V6, IpProtocol::ICMPV6),
    };
    let (is_request, repr) = if random.bool() {
        (true, icmp::Repr::echo_request(version, ident, sequence, payload_len))
    } else {
        (false, icmp::Repr::echo_reply(version, ident, sequence, payload_len))
    };
    let mut message = [&vec![0xee; repr.header_len()][..], &payload].concat();
    repr.emit_with_checksum(&mut message, addresses).unwrap();
    let layer = match (version, is_request) {
        (IpVersion::V4, _) => "ICMP",
        (IpVersion::V6, true) => "ICMPv6EchoRequest",
        (IpVersion::V6, false) => "ICMPv6EchoReply",
    };
    let fields =
        json!({ "layer": layer, "type": repr.kind, "code": 0, "id": ident, "seq": sequence });
    let case = match version {
        IpVersion::V4 => {
            message.truncate(repr.header_len());
            Case::raw(payload).behind(message, fields)
        }
        // The data is a field of the message in scapy.
        IpVersion::V6 => Case::raw(Vec::new()).behind(message, fields),
    };
    (protocol, case)
}

/// Returns a GTP-U message in UDP.
fn tunnel_payload(random: &mut Random, addresses: Addresses) -> (IpProtocol, Case) {
    let message = match random.below(6) {
        0 => gtpu_message(random, gtpu::ECHO_REQUEST, &[], Case::raw(Vec::new())),
        1 => {
            let indication = error_indication(random);
            gtpu_message(random, gtpu::ERROR_INDICATION, &[], indication)
        }
        2 => gtpu_message(random, gtpu::END_MARKER, &[], Case::raw(Vec::new())),
        _ => {
            let (_, inner) = packet(random, upper);
            match random.below(4) {
                0 => gtpu_message(random, gtpu::G_PDU, &[], inner),
                _ => {
                    let container = container(random);
                    let fields = container_fields(&container);
                    let extensions = [Extension::PduSessionContainer(container)];
                    let inner = inner.behind(Vec::new(), fields);
                    gtpu_message(random, gtpu::G_PDU, &extensions, inner)
                }
            }
        }
    };
    let ports = (gtpu::PORT, gtpu::PORT);
    (IpProtocol::UDP, udp_datagram(random, addresses, ports, message))
}

/// Returns a message. `payload` has the layers of the extension headers, but not their bytes.
fn gtpu_message(
    random: &mut Random,
    message_type: u8,
    extensions: &[Extension<'_>],
    payload: Case,
) -> Case {
    let is_g_pdu = message_type == gtpu::G_PDU;
    let repr = gtpu::Repr {
        message_type,
        teid: random.u32(),
        sequence_number: match message_type {
            gtpu::G_PDU => random.option(Random::u16),
            gtpu::END_MARKER => None,
            _ => Some(random.u16()),
        },
        n_pdu_number: if is_g_pdu { random.option(Random::u8) } else { None },
        extensions,
        payload_len: payload.bytes.len() as u16,
    };
    let mut header = vec![0xee; repr.header_len()];
    repr.emit(&mut header).unwrap();
    let mut fields = json!({
        "layer": "GTP_U_Header",
        "gtp_type": message_type,
        "length": repr.buffer_len() - gtpu::HEADER_LEN,
        "teid": repr.teid,
        "S": u8::from(repr.sequence_number.is_some()),
        "PN": u8::from(repr.n_pdu_number.is_some()),
        "E": u8::from(!extensions.is_empty()),
    });
    if repr.header_len() > gtpu::HEADER_LEN {
        fields["seq"] = repr.sequence_number.unwrap_or(0).into();
        fields["npdu"] = repr.n_pdu_number.unwrap_or(0).into();
    }
    payload.behind(header, fields)
}

fn error_indication(random: &mut Random) -> Case {
    let peer = if random.bool() { IpAddr::V4(random.v4()) } else { IpAddr::V6(random.v6()) };
    let indication = ErrorIndication { teid: random.u32(), peer };
    let mut bytes = vec![0xee; indication.buffer_len()];
    indication.emit(&mut bytes).unwrap();
    let fields = json!({
        "layer": "GTPErrorIndication",
        "teid": indication.teid,
        "peer": peer.to_string(),
    });
    Case::raw(Vec::new()).behind(bytes, fields)
}

/// Returns a container without the fields of releases 17 and 18, which scapy 2.5 does not know.
fn container(random: &mut Random) -> PduSessionContainer {
    let number = |random: &mut Random| random.u32() & 0x00ff_ffff;
    let qfi = random.below(64) as u8;
    if random.bool() {
        return PduSessionContainer::Downlink(DownlinkInformation {
            qfi,
            reflective_qos: random.bool(),
            paging_policy: random.option(|random| random.below(8) as u8),
            sending_timestamp: random.option(Random::next),
            sequence_number: random.option(number),
            mbs_sequence_number: None,
        });
    }
    PduSessionContainer::Uplink(UplinkInformation {
        qfi,
        timestamps: random.option(|random| UplinkTimestamps {
            downlink_sending: random.next(),
            downlink_received: random.next(),
            uplink_sending: random.next(),
        }),
        downlink_delay: random.option(Random::u32),
        uplink_delay: random.option(Random::u32),
        sequence_number: random.option(number),
        n3_n9_delay: random.option(Random::u32),
        ..UplinkInformation::default()
    })
}

/// Returns the fields of a container under the names that scapy has for them.
fn container_fields(container: &PduSessionContainer) -> Value {
    let mut fields = json!({
        "layer": "GTPPDUSessionContainer",
        "QFI": container.qfi(),
        "NextExtHdr": 0,
    });
    let mut add = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            fields[name] = value.into();
        }
    };
    match container {
        PduSessionContainer::Downlink(information) => {
            add("type", Some(0));
            add("RQI", Some(information.reflective_qos.into()));
            add("PPI", information.paging_policy.map(u64::from));
            add("dlSendTime", information.sending_timestamp);
            add("dlQFISeqNum", information.sequence_number.map(u64::from));
        }
        PduSessionContainer::Uplink(information) => {
            add("type", Some(1));
            let timestamps = information.timestamps;
            add("dlSendTimeRpt", timestamps.map(|timestamps| timestamps.downlink_sending));
            add("dlRecvTime", timestamps.map(|timestamps| timestamps.downlink_received));
            add("ulSendTime", timestamps.map(|timestamps| timestamps.uplink_sending));
            add("dlDelayRslt", information.downlink_delay.map(u64::from));
            add("ulDelayRslt", information.uplink_delay.map(u64::from));
            add("UlQFISeqNum", information.sequence_number.map(u64::from));
            add("N3N9DelayRslt", information.n3_n9_delay.map(u64::from));
        }
    }
    fields
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
