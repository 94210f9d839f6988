//! Reads Ethernet packets from pcap or pcapng.

use std::fs::File;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use pcap_parser::traits::PcapNGPacketBlock as _;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

#[derive(Clone, Debug, PartialEq)]
pub(super) struct CapturedPacket {
    /// Capture time in seconds since 1970; 0 if not recorded.
    pub(super) seconds: f64,
    /// Zeros replace the bytes that the capture omits.
    pub(super) bytes: Vec<u8>,
    /// Whether the capture truncated the packet.
    pub(super) truncated: bool,
}

/// A longer record is an error; common tools write none.
const BUFFER_BYTES: usize = 1 << 20;

/// Maximum length to which a truncated packet is padded. No frame is longer.
const MAX_PACKET_BYTES: usize = 1 << 18;

pub(super) fn read(
    path: &Path,
    mut handle: impl FnMut(CapturedPacket) -> Result<()>,
) -> Result<()> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let name = path.display();
    let mut reader = match create_reader(BUFFER_BYTES, file) {
        Ok(reader) => reader,
        Err(PcapError::Eof) => {
            bail!("{name} is empty: expected a capture in pcap or pcapng format")
        }
        Err(_) => bail!("{name} is not a capture: expected pcap or pcapng format"),
    };
    let mut units = TimestampUnits::default();
    loop {
        let (exhausted, consumed) = (reader.reader_exhausted(), reader.consumed());
        match reader.next() {
            Ok((length, block)) => {
                if let Some(packet) = units.read_block(&block).with_context(|| name.to_string())? {
                    handle(packet)?;
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => return Ok(()),
            Err(PcapError::UnexpectedEof) => {
                bail!("{name} is truncated: it ends in the middle of a packet")
            }
            Err(PcapError::Incomplete(_)) if exhausted => {
                bail!("{name} is truncated: it ends in the middle of a packet")
            }
            Err(PcapError::Incomplete(_)) => {
                if let Err(error) = reader.refill() {
                    bail!("cannot read {name}: {error}");
                }
            }
            Err(PcapError::BufferTooSmall) => {
                bail!("{name} has a record of more than {BUFFER_BYTES} bytes")
            }
            Err(error) => bail!("{name} is damaged after {} bytes: {error}", consumed),
        }
    }
}

/// Units of the timestamps, as the capture's headers state them.
#[derive(Default)]
struct TimestampUnits {
    /// pcap: the unit of the fraction of a second, in seconds.
    seconds_per_unit: f64,
    /// pcapng: per interface, the time units per second, and the offset in seconds to add.
    interfaces: Vec<(u64, u64)>,
}

impl TimestampUnits {
    /// Stores the units that a header block states.
    fn read_block(&mut self, block: &PcapBlockOwned<'_>) -> Result<Option<CapturedPacket>> {
        match block {
            PcapBlockOwned::LegacyHeader(header) => {
                check_ethernet(header.network)?;
                self.seconds_per_unit = if header.is_nanosecond_precision() { 1e-9 } else { 1e-6 };
                Ok(None)
            }
            PcapBlockOwned::Legacy(record) => {
                let seconds =
                    f64::from(record.ts_sec) + f64::from(record.ts_usec) * self.seconds_per_unit;
                Ok(Some(captured_packet(seconds, record.data, record.origlen)))
            }
            PcapBlockOwned::NG(Block::SectionHeader(_)) => {
                self.interfaces.clear();
                Ok(None)
            }
            PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                check_ethernet(interface.linktype)?;
                // Limited, so that adding it to a time cannot overflow. Negative offsets are
                // ignored.
                let offset = u64::try_from(interface.ts_offset()).unwrap_or(0).min(1 << 40);
                self.interfaces.push((interface.ts_resolution().unwrap_or(1_000_000), offset));
                Ok(None)
            }
            PcapBlockOwned::NG(Block::EnhancedPacket(record)) => {
                let Some((resolution, offset)) =
                    self.interfaces.get(record.if_id as usize).copied()
                else {
                    bail!(
                        "a packet refers to interface {}, which the capture does not describe",
                        record.if_id
                    );
                };
                let seconds = record.decode_ts_f64(offset, resolution.max(1));
                Ok(Some(captured_packet(seconds, record.packet_data(), record.origlen)))
            }
            PcapBlockOwned::NG(Block::SimplePacket(record)) => {
                Ok(Some(captured_packet(0.0, record.packet_data(), record.origlen)))
            }
            PcapBlockOwned::NG(_) => Ok(None),
        }
    }
}

fn check_ethernet(link: Linktype) -> Result<()> {
    if link != Linktype::ETHERNET {
        bail!(
            "link type {}: expected Ethernet (1), as in a capture on one Ethernet interface",
            link.0
        );
    }
    Ok(())
}

fn captured_packet(seconds: f64, data: &[u8], original_len: u32) -> CapturedPacket {
    let mut bytes = data.to_vec();
    let original_len = (original_len as usize).min(MAX_PACKET_BYTES);
    let truncated = bytes.len() < original_len;
    bytes.resize(original_len.max(bytes.len()), 0);
    CapturedPacket { seconds, bytes, truncated }
}
