//! Prints GTP-U messages.

use core::fmt;

use super::layer::{Layer, Lines};
use crate::error::Error;
use crate::field::read_u16;
use crate::gtpu::{
    self, ErrorIndication, ExtensionType, G_PDU, Packet, PduSessionContainer, message_name,
};

pub(super) fn print_gtpu<'a>(lines: &mut Lines, bytes: &'a [u8]) -> Result<Layer<'a>, fmt::Error> {
    let packet = match Packet::new_checked(bytes) {
        Ok(packet) => packet,
        Err(error) => {
            print_gtpu_error(lines, bytes, error)?;
            return Ok(Layer::End);
        }
    };
    match message_name(packet.message_type()) {
        Some(name) => lines.line(format_args!("GTP-U: {name}"))?,
        None => lines.line(format_args!("GTP-U: type {}", packet.message_type()))?,
    }
    lines.item(format_args!("teid 0x{:08x}", packet.teid()))?;
    if let Some(number) = packet.sequence_number() {
        lines.item(format_args!("seq {number}"))?;
    }
    if let Some(number) = packet.n_pdu_number() {
        lines.item(format_args!("n-pdu {number}"))?;
    }
    for header in packet.extensions() {
        match header.pdu_session_container() {
            Ok(Some(container)) => print_pdu_session(lines, &container)?,
            Ok(None) => lines.item(format_args!("extension {}", header.kind))?,
            Err(_) => {
                let kind = ExtensionType::PDU_SESSION_CONTAINER;
                lines.item(format_args!("malformed {kind}"))?;
            }
        }
    }
    if packet.message_type() == G_PDU {
        return Ok(Layer::Inner(packet.into_payload()));
    }
    if packet.message_type() == gtpu::ERROR_INDICATION
        && let Ok(ErrorIndication { teid, peer }) = ErrorIndication::parse(packet.payload())
    {
        lines.item(format_args!("no tunnel 0x{teid:08x} at {peer}"))?;
    }
    lines.item(format_args!("{} bytes of payload", packet.payload().len()))?;
    Ok(Layer::End)
}

fn print_gtpu_error(lines: &mut Lines, bytes: &[u8], error: Error) -> fmt::Result {
    if bytes.len() < gtpu::HEADER_LEN {
        return lines.truncated("GTP-U", bytes.len(), gtpu::HEADER_LEN);
    }
    let stated_len = gtpu::HEADER_LEN + usize::from(read_u16(bytes, 2..4));
    let (version, is_gtp) = (bytes[0] >> 5, bytes[0] & 0x10 != 0);
    match error {
        Error::Truncated if bytes.len() < stated_len => {
            lines.truncated("GTP-U", bytes.len(), stated_len)
        }
        // The message ends within the optional fields or the extension headers.
        Error::Truncated => {
            lines.line(format_args!("GTP-U: malformed, length {stated_len} ends within the header"))
        }
        Error::ExtensionChainTooLong => lines.line(format_args!(
            "GTP-U: more than {} extension headers; the message is not printed",
            gtpu::MAX_EXTENSIONS
        )),
        _ if version != 1 => lines.line(format_args!("GTP-U: malformed, version {version}")),
        _ if !is_gtp => lines.line(format_args!("GTP-U: malformed, protocol type GTP'")),
        _ => lines.line(format_args!("GTP-U: malformed, extension header of length 0")),
    }
}

fn print_pdu_session(lines: &mut Lines, container: &PduSessionContainer) -> fmt::Result {
    match container {
        PduSessionContainer::Downlink(information) => {
            lines.item(format_args!("downlink, qfi {}", information.qfi))?;
            if information.reflective_qos {
                lines.item(format_args!("reflective qos"))?;
            }
            if let Some(policy) = information.paging_policy {
                lines.item(format_args!("paging policy {policy}"))?;
            }
            if let Some(number) = information.sequence_number {
                lines.item(format_args!("qfi seq {number}"))?;
            }
        }
        PduSessionContainer::Uplink(information) => {
            lines.item(format_args!("uplink, qfi {}", information.qfi))?;
            if let Some(number) = information.sequence_number {
                lines.item(format_args!("qfi seq {number}"))?;
            }
        }
    }
    Ok(())
}
