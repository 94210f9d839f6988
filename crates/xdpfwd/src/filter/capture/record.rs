//! Packets and interfaces of a capture, in pcap and pcapng.

use super::input::End;
use super::link;
use super::skip::Skip;

/// A packet or an interface of a capture. To judge a packet is to apply the filter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    Packet(CapturedPacket),
    /// A packet that cannot be judged, and why. Packet numbers count it, as in tshark.
    Skipped(Skip),
    /// An interface whose packets cannot be judged, and why.
    UnreadableInterface(String),
    /// An interface whose packets can be judged.
    Interface,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CapturedPacket {
    /// Capture time in nanoseconds since 1970, if recorded.
    pub(crate) time: Option<i128>,
    /// The captured bytes of an Ethernet frame.
    pub(crate) bytes: Vec<u8>,
    /// The length of the whole frame in bytes. If `bytes` is shorter, `filter test` treats the
    /// missing bytes as zeros.
    pub(crate) length: usize,
}

/// Maximum length of a packet, as in libpcap and tshark. A longer one is skipped.
pub(super) const MAX_PACKET_BYTES: usize = 1 << 18;

/// Maximum bytes of a frame that [`Headers::parse`](xdpfwd_wire::Headers::parse) reads.
pub(crate) const MAX_FRAME_BYTES: usize = 65_535;

/// Maximum length of a record or block. A greater length means that the capture is damaged.
pub(super) const MAX_RECORD_BYTES: u32 = 1 << 26;

#[derive(Clone, Copy, Debug)]
pub(super) struct LinkLayer {
    pub(super) link_type: u32,
    pub(super) fcs_bytes: usize,
}

/// Converts a packet of `original_len` bytes, of which the capture has `data`.
pub(super) fn record(
    layer: LinkLayer,
    time: Option<i128>,
    data: &[u8],
    original_len: u32,
) -> Record {
    let original_len = (original_len as usize).max(data.len());
    if original_len > MAX_PACKET_BYTES {
        return Record::Skipped(Skip::from_reason(format!(
            "packet longer than {MAX_PACKET_BYTES} bytes"
        )));
    }
    let length = original_len.saturating_sub(layer.fcs_bytes);
    let data = &data[..data.len().min(length)];
    match link::to_ethernet(layer.link_type, data) {
        Ok(bytes) => {
            let length = bytes.len() + length - data.len();
            Record::Packet(CapturedPacket { time, bytes, length })
        }
        Err(skip) => Record::Skipped(skip),
    }
}

/// Reports an interface. `name` begins the message.
pub(super) fn interface(name: &str, layer: LinkLayer) -> Record {
    if link::is_known(layer.link_type) {
        return Record::Interface;
    }
    Record::UnreadableInterface(format!(
        "{name}link type {}: expected {}; its packets are skipped",
        layer.link_type,
        link::KNOWN
    ))
}

pub(super) fn check_length(length: u32, offset: u64) -> Result<usize, End> {
    if length > MAX_RECORD_BYTES {
        return Err(End::Damaged { offset, what: format!("a record of {length} bytes") });
    }
    Ok(length as usize)
}

/// Reads integers of either byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    pub(super) fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    pub(super) fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    pub(super) fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }

    /// Returns the integer at `offset`; 0 if `bytes` ends before. Callers check the length.
    pub(super) fn u16_at(self, bytes: &[u8], offset: usize) -> u16 {
        self.u16(
            bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default(),
        )
    }

    /// Like [`u16_at`](Self::u16_at).
    pub(super) fn u32_at(self, bytes: &[u8], offset: usize) -> u32 {
        self.u32(
            bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default(),
        )
    }
}
