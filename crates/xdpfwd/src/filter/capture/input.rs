//! The bytes of a capture.

use std::io::{self, Read};
use std::ops::Range;

/// The error that stopped reading before the end of the capture.
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

/// A source of bytes that counts them.
pub(super) struct Input {
    source: Box<dyn Read>,
    buffer: Box<[u8]>,
    /// The range of `buffer` that is not yet consumed.
    unread: Range<usize>,
    /// Whether the last read did not fill the buffer: the source has no more for now.
    is_drained: bool,
    /// A read error, returned after the buffered bytes.
    error: Option<io::Error>,
    /// The number of bytes consumed.
    offset: u64,
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.fill(1);
        if self.unread.is_empty() {
            return self.error.take().map_or(Ok(0), Err);
        }
        let length = self.unread.len().min(buffer.len());
        let end = self.unread.start + length;
        buffer[..length].copy_from_slice(&self.buffer[self.unread.start..end]);
        self.unread.start = end;
        self.offset += length as u64;
        Ok(length)
    }
}

impl Input {
    pub(super) fn new(source: Box<dyn Read>) -> Self {
        let buffer = vec![0; BUFFER_BYTES].into();
        Self { source, buffer, unread: 0..0, is_drained: false, error: None, offset: 0 }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Buffers at least `length` bytes, unless the source or the buffer ends before.
    fn fill(&mut self, length: usize) {
        let length = length.min(BUFFER_BYTES);
        if self.unread.len() >= length {
            return;
        }
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        // A pipe can deliver fewer bytes at once.
        while self.unread.end < length && self.error.is_none() {
            let free = &mut self.buffer[self.unread.end..];
            match self.source.read(free) {
                Ok(read) => {
                    self.is_drained = read < free.len();
                    self.unread.end += read;
                    if read == 0 {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.error = Some(error),
            }
        }
    }

    /// Returns the next bytes without consuming them: at least `length` unless the source or the
    /// buffer ends before.
    pub(super) fn peek(&mut self, length: usize) -> Result<&[u8], End> {
        self.fill(length);
        match self.error.take() {
            Some(error) if self.unread.is_empty() => Err(End::from_read(error)),
            error => {
                self.error = error;
                Ok(&self.buffer[self.unread.clone()])
            }
        }
    }

    /// Like [`peek`](Self::peek); also returns whether the source may end after these bytes.
    pub(super) fn buffered(&mut self, length: usize) -> Result<(&[u8], bool), End> {
        self.peek(length)?;
        Ok((&self.buffer[self.unread.clone()], self.is_drained || self.error.is_some()))
    }

    /// Fills `buffer`. Returns false if the source ends before the first byte of `buffer`.
    pub(super) fn read_or_end(&mut self, buffer: &mut [u8]) -> Result<bool, End> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(End::Truncated),
                Ok(length) => filled += length,
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
