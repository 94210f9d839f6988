//! GTP-U messages and PDU session containers.

use core::net::IpAddr;

use serde_json::{Value, json};
use xdpfwd_wire::gtpu::{
    self, DownlinkInformation, ErrorIndication, Extension, PduSessionContainer, UplinkInformation,
    UplinkTimestamps,
};
use xdpfwd_wire::{Addresses, IpProtocol};

use crate::case::{Case, Random};
use crate::network::packet;
use crate::transport::{udp_datagram, upper_layer};

/// Returns a UDP datagram with a GTP-U message, and its IP protocol.
pub(super) fn gtpu_datagram(random: &mut Random, addresses: Addresses) -> (IpProtocol, Case) {
    let message = match random.below(6) {
        0 => gtpu_message(random, gtpu::ECHO_REQUEST, &[], Case::raw(Vec::new())),
        1 => {
            let indication = error_indication(random);
            gtpu_message(random, gtpu::ERROR_INDICATION, &[], indication)
        }
        2 => gtpu_message(random, gtpu::END_MARKER, &[], Case::raw(Vec::new())),
        _ => {
            let (_, inner) = packet(random, upper_layer);
            match random.below(4) {
                0 => gtpu_message(random, gtpu::G_PDU, &[], inner),
                _ => {
                    let container = container(random);
                    let fields = container_fields(&container);
                    let extensions = [Extension::PduSessionContainer(container)];
                    // Add only the layer: `gtpu_message` writes the container's bytes.
                    let inner = inner.with_header(Vec::new(), fields);
                    gtpu_message(random, gtpu::G_PDU, &extensions, inner)
                }
            }
        }
    };
    let ports = (gtpu::PORT, gtpu::PORT);
    (IpProtocol::UDP, udp_datagram(random, addresses, ports, message))
}

/// Prepends a GTP-U header with extension headers to a payload. `payload.layers` must already begin
/// with the layers of these extension headers.
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
    payload.with_header(header, fields)
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
    Case::raw(Vec::new()).with_header(bytes, fields)
}

/// Returns a random container without the fields of 3GPP releases 17 and 18, which scapy 2.5 does
/// not know.
pub(super) fn container(random: &mut Random) -> PduSessionContainer {
    let sequence_number = |random: &mut Random| random.u32() & 0x00ff_ffff;
    let qfi = random.below(64) as u8;
    if random.bool() {
        return PduSessionContainer::Downlink(DownlinkInformation {
            qfi,
            reflective_qos: random.bool(),
            paging_policy: random.option(|random| random.below(8) as u8),
            sending_timestamp: random.option(Random::next),
            sequence_number: random.option(sequence_number),
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
        sequence_number: random.option(sequence_number),
        n3_n9_delay: random.option(Random::u32),
        ..UplinkInformation::default()
    })
}

/// Returns the fields of a container, under scapy's names.
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
