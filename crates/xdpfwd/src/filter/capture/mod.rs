//! Reads captures in pcap or pcapng format, also compressed with gzip, from a file or from standard
//! input.

mod input;
mod link;
mod pcap;
mod pcapng;
mod record;
mod skip;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use flate2::bufread::MultiGzDecoder;

use input::{End, Input};
pub(super) use record::{CapturedPacket, MAX_FRAME_BYTES, Record};
pub(super) use skip::Skip;

pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Calls `handle` for each record of the capture (a packet, or the description of an interface), up
/// to its end or the first error.
pub(super) fn read(path: &Path, mut handle: impl FnMut(Record) -> Result<()>) -> Result<()> {
    let (name, source): (String, Box<dyn Read>) = if is_stdin(path) {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let name = path.display().to_string();
        (name.clone(), Box::new(File::open(path).with_context(|| name)?))
    };
    read_from(source, &mut handle).map_err(|end| end.describe(&name))
}

/// `End` is the error that stopped reading.
fn read_from(
    source: Box<dyn Read>,
    handle: &mut dyn FnMut(Record) -> Result<()>,
) -> Result<(), End> {
    let mut input = Input::new(source);
    if input.peek(4)?.starts_with(&[0x1f, 0x8b]) {
        input = Input::new(Box::new(MultiGzDecoder::new(BufReader::new(input))));
    }
    let mut magic = [0; 4];
    magic.copy_from_slice(match input.peek(4)? {
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

/// Returns the program that decompresses a file with this `magic`.
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
    /// Returns the error message about the capture `name`.
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
                "{name} is truncated: it ends in the middle of a packet; the filter judged all \
                 packets before"
            ),
            Self::Damaged { offset, what } => anyhow!(
                "{name} is damaged after {offset} bytes: {what}; the filter judged all packets \
                 before"
            ),
            Self::Read(error) => anyhow!("cannot read {name}: {error}"),
            Self::Handler(error) => error,
        }
    }
}
