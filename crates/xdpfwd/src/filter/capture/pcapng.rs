//! The pcapng format: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-03.html>.

use anyhow::Result;

use super::input::{End, Input};
use super::record::{ByteOrder, LinkLayer, Record, check_length, interface, record};
use super::skip::Skip;

// Block types.
pub(super) const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;

/// Blocks without a packet that tshark numbers like packets: entries of the systemd journal, events
/// of Sysdig, and custom blocks.
const NUMBERED: [u32; 6] = [9, 0x204, 0x216, 0x221, 0xbad, 0x4000_0bad];

/// Maximum number of interfaces of a section.
const MAX_INTERFACES: usize = 1 << 16;

/// A block has its type and length before the body, and the length again after it.
const FRAMING_BYTES: usize = 12;

#[derive(Clone, Debug)]
struct Interface {
    layer: LinkLayer,
    /// Maximum bytes captured of a packet; 0 for no limit.
    snap_len: u32,
    clock: Clock,
    /// Whether the interface block is damaged, so that the packets are skipped.
    is_damaged: bool,
}

/// The time unit of an interface.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// `if_tsresol`. Its low seven bits are an exponent. The time unit in seconds is 1/10 (1/2 if
    /// the highest bit is set) to the power of this exponent.
    resolution: u8,
    /// `if_tsoffset`, in seconds.
    offset: i64,
}

impl Clock {
    const DEFAULT: Self = Self { resolution: 6, offset: 0 };

    /// Converts a timestamp to nanoseconds since 1970, rounded down.
    fn nanoseconds(self, time: u64) -> i128 {
        let exponent = u32::from(self.resolution & 0x7f);
        let time = u128::from(time);
        let nanoseconds = if self.resolution & 0x80 != 0 {
            (time * 1_000_000_000) >> exponent
        } else if exponent <= 9 {
            time * 10_u128.pow(9 - exponent)
        } else {
            // If the power overflows, the unit is so short that even the largest time is less than
            // one nanosecond.
            10_u128.checked_pow(exponent - 9).map_or(0, |divisor| time / divisor)
        };
        nanoseconds as i128 + i128::from(self.offset) * 1_000_000_000
    }
}

/// The state of the current section.
struct Section<'h> {
    order: ByteOrder,
    interfaces: Vec<Interface>,
    handle: &'h mut dyn FnMut(Record) -> Result<()>,
}

pub(super) fn read(
    mut input: Input,
    handle: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(), End> {
    let mut section = Section { order: ByteOrder::Little, interfaces: Vec::new(), handle };
    let mut body = Vec::new();
    loop {
        let offset = input.offset();
        let damaged = |what: &str| End::Damaged { offset, what: what.to_owned() };
        let mut header = [0; 8];
        if !input.read_or_end(&mut header)? {
            return Ok(());
        }
        let is_section_header = header[..4] == SECTION_HEADER.to_be_bytes();
        if is_section_header {
            // The header above contains the length, but the byte order of the length is known only
            // from the magic after it.
            section.order = match u32::from_be_bytes(input.read_array()?) {
                0x1a2b_3c4d => ByteOrder::Big,
                0x4d3c_2b1a => ByteOrder::Little,
                _ => return Err(damaged("a section header without a byte-order magic")),
            };
        }
        let order = section.order;
        let (kind, total) = (order.u32_at(&header, 0), order.u32_at(&header, 4));
        let consumed = if is_section_header { 4 } else { 0 };
        let Some(rest) = check_length(total, offset)?.checked_sub(FRAMING_BYTES + consumed) else {
            return Err(damaged("a block that is too short"));
        };
        if total % 4 != 0 {
            return Err(damaged("a block whose length is not a multiple of 4"));
        }
        input.read_into(&mut body, rest)?;
        if order.u32(input.read_array()?) != total {
            return Err(damaged("a block with two different lengths"));
        }
        if is_section_header {
            if order.u16_at(&body, 0) != 1 {
                return Err(damaged("a section of an unknown version"));
            }
            section.interfaces.clear();
        } else {
            section.read_block(kind, &body, offset)?;
        }
    }
}

impl Section<'_> {
    fn read_block(&mut self, kind: u32, body: &[u8], offset: u64) -> Result<(), End> {
        let record = match kind {
            INTERFACE if self.interfaces.len() == MAX_INTERFACES => {
                let what = format!("a section with more than {MAX_INTERFACES} interfaces");
                return Err(End::Damaged { offset, what });
            }
            INTERFACE => self.read_interface(body),
            ENHANCED_PACKET => self.read_packet(body, self.order.u32_at(body, 0)),
            OBSOLETE_PACKET => self.read_packet(body, self.order.u16_at(body, 0).into()),
            SIMPLE_PACKET => self.read_simple_packet(body),
            kind if NUMBERED.contains(&kind) => Some(Record::Skipped(Skip::from_reason(format!(
                "block type {kind:#x}: not a packet"
            )))),
            _ => return Ok(()),
        };
        let damaged = || {
            let text = format!("damaged block at byte {offset}");
            Record::Skipped(Skip::new(text, "damaged block"))
        };
        Ok((self.handle)(record.unwrap_or_else(damaged))?)
    }

    fn read_interface(&mut self, body: &[u8]) -> Option<Record> {
        let order = self.order;
        let name = format!("interface {}: ", self.interfaces.len());
        let mut interface_block = Interface {
            layer: LinkLayer { link_type: order.u16_at(body, 0).into(), fcs_bytes: 0 },
            snap_len: order.u32_at(body, 4),
            clock: Clock::DEFAULT,
            is_damaged: false,
        };
        let is_intact = body.len() >= 8 && interface_block.read_options(order, &body[8..]);
        let report = if is_intact {
            interface(&name, interface_block.layer)
        } else {
            interface_block.is_damaged = true;
            Record::UnreadableInterface(format!("{name}damaged block; its packets are skipped"))
        };
        self.interfaces.push(interface_block);
        Some(report)
    }

    /// Reads an enhanced or obsolete packet block, whose fields after the interface have the same
    /// offsets. Returns `None` if the block is damaged.
    fn read_packet(&self, body: &[u8], interface: u32) -> Option<Record> {
        let order = self.order;
        let [high, low, captured, original] =
            [4, 8, 12, 16].map(|offset| order.u32_at(body, offset));
        let data = body.get(20..)?.get(..captured as usize)?;
        let Some(interface) = self.interfaces.get(interface as usize) else {
            return Some(undescribed(interface));
        };
        let time = interface.clock.nanoseconds(u64::from(high) << 32 | u64::from(low));
        Some(interface.record(Some(time), data, original))
    }

    fn read_simple_packet(&self, body: &[u8]) -> Option<Record> {
        let original = self.order.u32_at(body, 0);
        let data = body.get(4..)?;
        let Some(interface) = self.interfaces.first() else {
            return Some(undescribed(0));
        };
        let limit = if interface.snap_len == 0 { u32::MAX } else { interface.snap_len };
        let captured = original.min(limit) as usize;
        // The block does not state the captured length, and padding may follow the data.
        Some(interface.record(None, data.get(..captured)?, original))
    }
}

fn undescribed(interface: u32) -> Record {
    let text = format!("interface {interface}, which the capture does not describe");
    Record::Skipped(Skip::new(text, "interface that the capture does not describe"))
}

impl Interface {
    fn record(&self, time: Option<i128>, data: &[u8], original: u32) -> Record {
        if self.is_damaged {
            return Record::Skipped(Skip::from_reason("damaged interface block"));
        }
        record(self.layer, time, data, original)
    }

    /// Reads the options of an interface block: `if_tsresol` (9), `if_fcslen` (13) and
    /// `if_tsoffset` (14), up to `opt_endofopt` (0). Returns false if the options are damaged.
    fn read_options(&mut self, order: ByteOrder, mut options: &[u8]) -> bool {
        while let Some((header, rest)) = options.split_first_chunk::<4>() {
            let (code, length) = (order.u16_at(header, 0), usize::from(order.u16_at(header, 2)));
            let Some(value) = rest.get(..length) else { return false };
            match (code, value) {
                (0, _) => return true,
                (9, [resolution]) => self.clock.resolution = *resolution,
                (13, [fcs_bytes]) => self.layer.fcs_bytes = usize::from(*fcs_bytes),
                (14, value) => match value.try_into() {
                    Ok(offset) => self.clock.offset = order.i64(offset),
                    Err(_) => return false,
                },
                (9 | 13, _) => return false,
                _ => {}
            }
            options = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        true
    }
}
