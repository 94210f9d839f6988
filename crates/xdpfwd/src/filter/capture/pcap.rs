//! The pcap format: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-05.html>, and variants
//! of it that libpcap or tshark read.

use anyhow::Result;

use super::input::{End, Input};
use super::{ByteOrder, LinkLayer, Record, check_length, interface, record};

/// A variant of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    order: ByteOrder,
    /// Per second of the capture time's second part.
    nanoseconds_per_unit: u32,
    /// Bytes after the file header that tshark skips, too.
    extra_file_header: usize,
    /// Bytes after each record header.
    extra_record_header: usize,
}

impl Format {
    pub(super) fn from_magic(magic: [u8; 4]) -> Option<Self> {
        let from_order = |order: ByteOrder| {
            let (nanoseconds_per_unit, extra_file_header, extra_record_header) =
                match order.u32(magic) {
                    0xa1b2_c3d4 => (1000, 0, 0),
                    0xa1b2_3c4d => (1, 0, 0),
                    // Kuznetzov's modified pcap: each record has interface, protocol and direction.
                    0xa1b2_cd34 => (1000, 0, 8),
                    // Ixia's lcap, of hardware and of software.
                    0x1c00_01ac | 0x1c00_01ab => (1, 4, 0),
                    _ => return None,
                };
            Some(Self { order, nanoseconds_per_unit, extra_file_header, extra_record_header })
        };
        from_order(ByteOrder::Little).or_else(|| from_order(ByteOrder::Big))
    }
}

/// How a file stores the two lengths of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LengthOrder {
    CapturedFirst,
    OriginalFirst,
    /// Version 2.3: the smaller one is the captured length.
    Unknown,
}

pub(super) fn read(
    mut input: Input,
    format: Format,
    handle: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(), End> {
    let order = format.order;
    let header: [u8; 24] = input.read_array()?;
    let length_order = match (order.u16_at(&header, 4), order.u16_at(&header, 6)) {
        (2, 0..=2) | (543, 0) => LengthOrder::OriginalFirst,
        (2, 3) => LengthOrder::Unknown,
        _ => LengthOrder::CapturedFirst,
    };
    let network = order.u32_at(&header, 20);
    let has_fcs = network & 0x0400_0000 != 0;
    let layer = LinkLayer {
        link_type: network & 0x03ff_ffff,
        fcs_bytes: if has_fcs { (network >> 28) as usize * 2 } else { 0 },
    };
    handle(interface("", layer))?;
    let mut bytes = Vec::new();
    input.read_into(&mut bytes, format.extra_file_header)?;
    loop {
        let offset = input.offset();
        let mut header = [0; 16];
        if !input.read_or_end(&mut header)? {
            return Ok(());
        }
        let [seconds, units, first, second] =
            [0, 4, 8, 12].map(|offset| order.u32_at(&header, offset));
        let (captured, original) = match length_order {
            LengthOrder::CapturedFirst => (first, second),
            LengthOrder::OriginalFirst => (second, first),
            LengthOrder::Unknown => (first.min(second), first.max(second)),
        };
        let length = check_length(captured, offset)?;
        input.read_into(&mut bytes, format.extra_record_header)?;
        input.read_into(&mut bytes, length)?;
        let time = i128::from(seconds) * 1_000_000_000
            + i128::from(units) * i128::from(format.nanoseconds_per_unit);
        handle(record(layer, Some(time), &bytes, original))?;
    }
}
