//! Reads captures in pcap or pcapng format, also compressed with gzip, from a file or from standard
//! input.

mod input;
mod link;
mod pcap;
mod pcapng;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use flate2::bufread::MultiGzDecoder;

use input::{End, Input};

/// A part of a capture.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Packet(CapturedPacket),
    /// A packet that cannot be judged, and the reason. It has a number like other packets, because
    /// tshark numbers it, too.
    Skipped(String),
    /// An interface whose packets cannot be judged, and why.
    UnreadableInterface(String),
    /// An interface whose packets can be judged.
    Interface,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct CapturedPacket {
    /// Capture time in nanoseconds since 1970, if recorded.
    pub(super) time: Option<i128>,
    /// An Ethernet frame. Zeros replace the bytes that the capture omits.
    pub(super) bytes: Vec<u8>,
    /// Whether the capture truncated the packet.
    pub(super) truncated: bool,
}

/// Maximum length of a packet, as in libpcap and tshark. Longer packets are skipped.
const MAX_PACKET_BYTES: usize = 1 << 18;

/// Maximum length of a record or block. A greater length means that the capture is damaged.
const MAX_RECORD_BYTES: u32 = 1 << 26;

/// The link type and the length of the frame check sequence.
#[derive(Clone, Copy, Debug)]
struct LinkLayer {
    link_type: u32,
    fcs_bytes: usize,
}

/// Returns whether `path` stands for standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Calls `handle` for each part of the capture, up to its end or the first error.
pub(super) fn read(path: &Path, mut handle: impl FnMut(Record) -> Result<()>) -> Result<()> {
    let (name, source): (String, Box<dyn Read>) = if is_stdin(path) {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        (name.clone(), Box::new(File::open(path).with_context(|| name)?))
    };
    read_from(source, &mut handle).map_err(|end| end.describe(&name))
}

fn read_from(
    source: Box<dyn Read>,
    handle: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(), End> {
    let mut input = Input::new(source);
    if input.peek()?.starts_with(&[0x1f, 0x8b]) {
        input = Input::new(Box::new(MultiGzDecoder::new(BufReader::new(input))));
    }
    let mut magic = [0; 4];
    magic.copy_from_slice(match input.peek()? {
        [] => return Err(End::Empty),
        start => start.get(..4).ok_or(End::NotACapture(None))?,
    });
    if magic == pcapng::SECTION_HEADER.to_be_bytes() {
        return pcapng::read(input, handle);
    }
    match pcap::Format::from_magic(magic) {
        Some(format) => pcap::read(input, format, handle),
        None => Err(End::NotACapture(compression(magic))),
    }
}

/// Returns the name of the program that decompresses a file that starts with `magic`.
fn compression(magic: [u8; 4]) -> Option<&'static str> {
    match magic {
        [0x28, 0xb5, 0x2f, 0xfd] => Some("zstd"),
        [0x04, 0x22, 0x4d, 0x18] => Some("lz4"),
        [0xfd, b'7', b'z', b'X'] => Some("xz"),
        [b'B', b'Z', b'h', _] => Some("bzip2"),
        _ => None,
    }
}

impl End {
    fn describe(self, name: &str) -> anyhow::Error {
        match self {
            Self::Empty => anyhow!("{name} is empty: expected a capture in pcap or pcapng format"),
            Self::NotACapture(None) => {
                anyhow!("{name} is not a capture: expected pcap or pcapng format")
            }
            Self::NotACapture(Some(program)) => anyhow!(
                "{name} is compressed: decompress it: `{program} -dc FILE | {} filter test --pcap - …`",
                crate::program::name()
            ),
            Self::Truncated => anyhow!(
                "{name} is truncated: it ends in the middle of a packet; all packets before were \
                 judged"
            ),
            Self::Damaged { offset, what } => anyhow!(
                "{name} is damaged after {offset} bytes: {what}; all packets before were judged"
            ),
            Self::Read(error) => anyhow!("cannot read {name}: {error}"),
            Self::Handler(error) => error,
        }
    }
}

/// Returns the record of a packet that had `original_len` bytes and of which the capture contains
/// `data`. Zeros replace the bytes that the capture lacks.
fn record(layer: LinkLayer, time: Option<i128>, data: &[u8], original_len: u32) -> Record {
    let original_len = (original_len as usize).max(data.len());
    if original_len > MAX_PACKET_BYTES {
        return Record::Skipped(format!("packet longer than {MAX_PACKET_BYTES} bytes"));
    }
    let length = original_len.saturating_sub(layer.fcs_bytes);
    let data = &data[..data.len().min(length)];
    match link::to_ethernet(layer.link_type, data) {
        Ok(mut bytes) => {
            let missing = length - data.len();
            bytes.resize(bytes.len() + missing, 0);
            Record::Packet(CapturedPacket { time, bytes, truncated: missing > 0 })
        }
        Err(reason) => Record::Skipped(reason),
    }
}

/// Returns the record of an interface. If its packets cannot be judged, the message begins with
/// `name`.
fn interface(name: &str, layer: LinkLayer) -> Record {
    if link::is_known(layer.link_type) {
        return Record::Interface;
    }
    Record::UnreadableInterface(format!(
        "{name}link type {}: expected {}; its packets are skipped",
        layer.link_type,
        link::KNOWN
    ))
}

fn check_length(length: u32, offset: u64) -> Result<usize, End> {
    if length > MAX_RECORD_BYTES {
        return Err(End::Damaged { offset, what: format!("a record of {length} bytes") });
    }
    Ok(length as usize)
}

/// The byte order of the integers in a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ByteOrder {
    Little,
    Big,
}

impl ByteOrder {
    fn u16(self, bytes: [u8; 2]) -> u16 {
        match self {
            Self::Little => u16::from_le_bytes(bytes),
            Self::Big => u16::from_be_bytes(bytes),
        }
    }

    fn u32(self, bytes: [u8; 4]) -> u32 {
        match self {
            Self::Little => u32::from_le_bytes(bytes),
            Self::Big => u32::from_be_bytes(bytes),
        }
    }

    fn i64(self, bytes: [u8; 8]) -> i64 {
        match self {
            Self::Little => i64::from_le_bytes(bytes),
            Self::Big => i64::from_be_bytes(bytes),
        }
    }

    /// Returns the integer at `offset`, or 0 if `bytes` is too short. Callers check the length.
    fn u16_at(self, bytes: &[u8], offset: usize) -> u16 {
        self.u16(
            bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default(),
        )
    }

    /// Like [`u16_at`](Self::u16_at), but reads four bytes.
    fn u32_at(self, bytes: &[u8], offset: usize) -> u32 {
        self.u32(
            bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default(),
        )
    }
}
