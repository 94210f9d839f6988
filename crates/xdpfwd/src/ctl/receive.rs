//! Reads answers from the control socket.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::{Uid, User};

use super::escape;

/// Time limit without progress. The server's limit is shorter, so that the client receives the
/// server's error about a timeout.
const TIMEOUT: Duration = Duration::from_secs(40);

/// Number of received bytes that count as progress. A shorter answer must arrive completely within
/// [`TIMEOUT`].
const PROGRESS_BYTES: u64 = 1 << 16;

/// Maximum bytes of an answer that is read into memory.
pub(super) const MAX_STORED: u64 = 64 << 20;

/// Maximum bytes of an answer that is printed while it arrives.
pub(super) const MAX_LISTING: u64 = 4 << 30;

/// Checks that the server belongs to root or to the user of this process: any other user could
/// invent answers.
pub(super) fn check_server(stream: &UnixStream, socket: &str) -> Result<(), String> {
    let server = match getsockopt(stream, PeerCredentials) {
        Ok(credentials) => Uid::from_raw(credentials.uid()),
        Err(error) => {
            return Err(format!("cannot read the user of the server on {socket}: {error}"));
        }
    };
    if server.is_root() || server == Uid::effective() {
        return Ok(());
    }
    let name = User::from_uid(server).ok().flatten().map_or(format!("#{server}"), |user| user.name);
    let name = escape::line(&name);
    let program = crate::program::name();
    Err(format!(
        "the server on {socket} runs as user {name:?}, who could invent answers: expected root or \
         the user of this command; if this is your {program}, use `sudo -u '{name}' {program} ctl …`"
    ))
}

/// A reader that fails if the server sends too much, or too slowly.
pub(super) struct Limited<'s> {
    stream: &'s UnixStream,
    remaining: u64,
    /// Time spent waiting for the server since the last progress.
    waited: Duration,
    /// Bytes since the last progress.
    received: u64,
}

impl<'s> Limited<'s> {
    pub(super) fn new(stream: &'s UnixStream, max_bytes: u64) -> Self {
        Self { stream, remaining: max_bytes, waited: Duration::ZERO, received: 0 }
    }
}

impl Read for Limited<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 {
            return Err(io::Error::other(
                "the answer does not end: it is longer than any valid one",
            ));
        }
        let timeout = TIMEOUT.saturating_sub(self.waited);
        if timeout.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(timeout))?;
        let length = buffer.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let start = Instant::now();
        let length = self.stream.read(&mut buffer[..length])?;
        self.waited += start.elapsed();
        self.received += length as u64;
        self.remaining -= length as u64;
        if self.received >= PROGRESS_BYTES {
            (self.received, self.waited) = (0, Duration::ZERO);
        }
        Ok(length)
    }
}

/// A reader that also passes all text to `write`.
pub(super) struct Tee<R, F> {
    source: R,
    unwritten: Vec<u8>,
    write: F,
}

impl<R: Read, F: FnMut(&str) -> io::Result<()>> Tee<R, F> {
    pub(super) fn new(source: R, write: F) -> Self {
        Self { source, unwritten: Vec::new(), write }
    }

    /// Passes all complete characters to `write`. Keeps an incomplete character at the end, and
    /// replaces invalid bytes by U+FFFD.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let mut text = String::new();
        let mut rest = 0;
        let mut chunks = self.unwritten.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            text.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && invalid.len() < 4 {
                // The other bytes of this character may follow.
                rest = invalid.len();
            } else if !invalid.is_empty() {
                text.push('\u{fffd}');
            }
        }
        self.unwritten.drain(..self.unwritten.len() - rest);
        (self.write)(&text)
    }
}

impl<R: Read, F: FnMut(&str) -> io::Result<()>> Read for Tee<R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.unwritten.extend(&buffer[..length]);
        if self.unwritten.len() >= 1 << 16 {
            self.flush()?;
        }
        Ok(length)
    }
}

/// Describes an answer that is not JSON, or that cannot be read.
pub(super) fn describe(error: serde_json::Error) -> anyhow::Error {
    if error.is_io() {
        return anyhow::Error::new(io::Error::from(error)).context("cannot read the response");
    }
    if error.is_eof() {
        return anyhow!("the response ends early: the program has ended or no longer answers");
    }
    // The message can quote the response.
    anyhow!("the response is not JSON: {}", escape::line(&error.to_string()))
}

/// Reads a line of at most [`MAX_STORED`] bytes.
pub(super) fn read_line(stream: &UnixStream) -> Result<String> {
    let mut bytes = Vec::new();
    let mut reader = io::BufReader::new(Limited::new(stream, MAX_STORED));
    io::BufRead::read_until(&mut reader, b'\n', &mut bytes).context("cannot read the response")?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    String::from_utf8(bytes).context("the response is not UTF-8")
}
