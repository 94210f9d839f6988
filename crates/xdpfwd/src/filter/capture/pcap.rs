//! The pcap format: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-05.html>, and variants
//! of it that libpcap or tshark read.

use anyhow::Result;

use super::input::{End, Input};
use super::record::{
    ByteOrder, LinkLayer, MAX_PACKET_BYTES, MAX_RECORD_BYTES, Record, check_length, interface,
    record,
};

/// A variant of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Format {
    order: ByteOrder,
    /// Nanoseconds per unit of `RecordHeader::units`: 1000 for microseconds, 1 for nanoseconds.
    nanoseconds_per_unit: u32,
    /// Number of additional bytes after the file header. They are skipped, as in tshark.
    extra_file_header: usize,
    /// Number of additional bytes after each record header. They are skipped.
    extra_record_header: usize,
}

impl Format {
    pub(super) fn from_magic(magic: [u8; 4]) -> Option<Self> {
        let from_order = |order: ByteOrder| {
            let (nanoseconds_per_unit, extra_file_header, extra_record_header) =
                match order.u32(magic) {
                    0xa1b2_c3d4 => (1000, 0, 0),
                    0xa1b2_3c4d => (1, 0, 0),
                    // Kuznetzov's modified pcap: interface, protocol and direction follow each
                    // record header.
                    0xa1b2_cd34 => (1000, 0, 8),
                    // Ixia's lcap, which Ixia's hardware and software write.
                    0x1c00_01ac | 0x1c00_01ab => (1, 4, 0),
                    _ => return None,
                };
            Some(Self { order, nanoseconds_per_unit, extra_file_header, extra_record_header })
        };
        from_order(ByteOrder::Little).or_else(|| from_order(ByteOrder::Big))
    }
}

/// Other values of `extra_record_header` for the same magic number: some variants use the magic
/// number of another variant, and only tshark reads them. Instead of 0 (pcap): 8 (Red Hat 6.1) or 4
/// (Nokia). Instead of 8 (Kuznetzov): 12 (SuSE 6.3).
const OTHER_EXTRA_BYTES: [(usize, &[usize]); 2] = [(0, &[8, 4]), (8, &[12])];

impl Format {
    /// Returns the variant that fits `start`, the first bytes after the file header. `may_end` is
    /// whether the file may end after `start`.
    fn detect_variant(self, start: &[u8], length_order: LengthOrder, may_end: bool) -> Self {
        let fits = |format: &Self| format.fits(start, length_order, may_end);
        if fits(&self) {
            return self;
        }
        let variants =
            OTHER_EXTRA_BYTES.iter().filter(|(extra, _)| *extra == self.extra_record_header);
        let mut variants = variants.flat_map(|(_, others)| *others);
        let variant = variants.find_map(|&extra_record_header| {
            Some(Self { extra_record_header, ..self }).filter(fits)
        });
        variant.unwrap_or(self)
    }

    fn fits(&self, start: &[u8], length_order: LengthOrder, may_end: bool) -> bool {
        let mut rest = start;
        let mut last_seconds = None;
        while let Some((header, data)) = rest.split_first_chunk::<RECORD_HEADER>() {
            let record = RecordHeader::new(header, self.order, length_order);
            let is_plausible = record.captured as usize <= MAX_PACKET_BYTES
                && record.original <= MAX_RECORD_BYTES
                && u64::from(record.units) * u64::from(self.nanoseconds_per_unit) < 1_000_000_000;
            if !is_plausible {
                return false;
            }
            let length = self.extra_record_header + record.captured as usize;
            let Some(next) = data.get(length..) else { break };
            (rest, last_seconds) = (next, Some(record.seconds));
        }
        // The remaining bytes may be a truncated record. Accept them as one if their time is close
        // to that of the last complete record.
        let is_record = last_seconds.is_some_and(|last: u32| {
            const DAY: u32 = 86_400;
            self.order.u32_at(rest, 0).abs_diff(last) <= DAY
        });
        rest.is_empty() || !may_end || is_record
    }
}

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

struct RecordHeader {
    seconds: u32,
    /// Fraction of a second.
    units: u32,
    captured: u32,
    original: u32,
}

impl RecordHeader {
    fn new(header: &[u8; RECORD_HEADER], order: ByteOrder, length_order: LengthOrder) -> Self {
        let [seconds, units, first, second] =
            [0, 4, 8, 12].map(|offset| order.u32_at(header, offset));
        let (captured, original) = match length_order {
            LengthOrder::CapturedFirst => (first, second),
            LengthOrder::OriginalFirst => (second, first),
            LengthOrder::Unknown => (first.min(second), first.max(second)),
        };
        Self { seconds, units, captured, original }
    }
}

/// The order of the two lengths of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LengthOrder {
    CapturedFirst,
    OriginalFirst,
    /// Files of version 2.3 use both orders. The smaller length is the captured one.
    Unknown,
}

pub(super) fn read(
    mut input: Input,
    format: Format,
    handle: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(), End> {
    let order = format.order;
    let header: [u8; FILE_HEADER] = input.read_array()?;
    let version = (order.u16_at(&header, 4), order.u16_at(&header, 6));
    let length_order = match version {
        // DG/UX tcpdump writes the version 543.0.
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
    // Wait for the first packet, but not for a second one, which a live capture may not have yet.
    let mut first_record = RECORD_HEADER;
    if let Some(header) = input.peek(RECORD_HEADER)?.first_chunk() {
        first_record += RecordHeader::new(header, order, length_order).captured as usize;
    }
    let (start, may_end) = input.buffered(first_record)?;
    let format = format.detect_variant(start, length_order, may_end);
    loop {
        let offset = input.offset();
        let mut header = [0; RECORD_HEADER];
        if !input.read_or_end(&mut header)? {
            return Ok(());
        }
        let RecordHeader { seconds, units, captured, original } =
            RecordHeader::new(&header, order, length_order);
        let length = check_length(captured, offset)?;
        input.read_into(&mut bytes, format.extra_record_header)?;
        input.read_into(&mut bytes, length)?;
        let time = i128::from(seconds) * 1_000_000_000
            + i128::from(units) * i128::from(format.nanoseconds_per_unit);
        handle(record(layer, Some(time), &bytes, original))?;
    }
}
