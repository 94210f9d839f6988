//! The bytes of a capture.

use std::io::{self, BufRead, BufReader, Read};

/// Why reading ended before the end of the capture.
#[derive(Debug)]
pub(super) enum End {
    Empty,
    /// Contains the name of the program that decompresses the file, if the file is compressed.
    NotACapture(Option<&'static str>),
    Truncated,
    Damaged {
        offset: u64,
        what: String,
    },
    Read(io::Error),
    /// The caller's handler failed.
    Handler(anyhow::Error),
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        Self::Handler(error)
    }
}

const BUFFER_BYTES: usize = 1 << 16;

fn buffered(source: Box<dyn Read>) -> BufReader<Box<dyn Read>> {
    BufReader::with_capacity(BUFFER_BYTES, source)
}

/// A source of bytes that counts the bytes read from it.
pub(super) struct Input {
    source: BufReader<Box<dyn Read>>,
    offset: u64,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.offset += length as u64;
        Ok(length)
    }
}

impl Input {
    pub(super) fn new(source: Box<dyn Read>) -> Self {
        Self { source: buffered(source), offset: 0 }
    }

    /// The number of bytes read.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns the next bytes without consuming them: at least four unless the source is shorter.
    pub(super) fn peek(&mut self) -> Result<&[u8], End> {
        // A pipe can deliver fewer bytes at first. Read four bytes, and put them before the rest of
        // the source again.
        if self.source.fill_buf().map_err(End::from_read)?.len() < 4 {
            let mut start = Vec::new();
            self.source.by_ref().take(4).read_to_end(&mut start).map_err(End::from_read)?;
            let rest = std::mem::replace(&mut self.source, buffered(Box::new(io::empty())));
            self.source = buffered(Box::new(io::Cursor::new(start).chain(rest)));
        }
        self.source.fill_buf().map_err(End::from_read)
    }

    /// Returns the same bytes as [`peek`](Self::peek), and whether the source may end after them: a
    /// source that fills only a part of the buffer has no more bytes at the moment.
    pub(super) fn buffered(&mut self) -> Result<(&[u8], bool), End> {
        let bytes = self.peek()?;
        Ok((bytes, bytes.len() < BUFFER_BYTES))
    }

    /// Fills `buffer`. Returns false if the source ends before the first byte of `buffer`.
    pub(super) fn read_or_end(&mut self, buffer: &mut [u8]) -> Result<bool, End> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(End::Truncated),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(End::from_read(error)),
            }
        }
        Ok(true)
    }

    pub(super) fn read_array<const N: usize>(&mut self) -> Result<[u8; N], End> {
        let mut bytes = [0; N];
        if self.read_or_end(&mut bytes)? { Ok(bytes) } else { Err(End::Truncated) }
    }

    /// Reads `length` bytes into `buffer`, whose contents it replaces.
    pub(super) fn read_into(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), End> {
        buffer.clear();
        // A damaged capture can state any `length`. `read_to_end` allocates only as much memory as
        // the bytes that arrive need.
        let read = self.by_ref().take(length as u64).read_to_end(buffer);
        if read.map_err(End::from_read)? < length { Err(End::Truncated) } else { Ok(()) }
    }
}

impl End {
    /// The gzip decoder fails with `UnexpectedEof` if the compressed data ends early. This means
    /// that the capture is truncated.
    fn from_read(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            _ => Self::Read(error),
        }
    }
}
