//! Layers and output lines.

use core::fmt;

use crate::ip::{Addresses, Fragment, IpProtocol};

/// A layer to be printed. Printing it returns the next layer, so nested packets need no recursion.
#[derive(Debug, Clone, Copy)]
pub(super) enum Layer<'a> {
    /// No further layer.
    End,
    Ethernet(&'a [u8]),
    Arp(&'a [u8]),
    /// An IP packet of any version.
    Ip(&'a [u8]),
    Ipv4(&'a [u8]),
    Ipv6(&'a [u8]),
    Upper(IpPayload<'a>),
    Gtpu(&'a [u8]),
    /// An IP packet to be indented by one more level.
    Inner(&'a [u8]),
}

/// The payload of an IP packet, after the extension headers.
#[derive(Debug, Clone, Copy)]
pub(super) struct IpPayload<'a> {
    pub(super) addresses: Addresses,
    pub(super) protocol: IpProtocol,
    pub(super) fragment: Fragment,
    pub(super) bytes: &'a [u8],
}

/// A writer of output lines. `line` begins a line, `item` continues it after a comma.
pub(super) struct Lines<'a, 'b> {
    f: &'a mut fmt::Formatter<'b>,
    depth: usize,
    is_first: bool,
}

impl<'a, 'b> Lines<'a, 'b> {
    pub(super) fn new(f: &'a mut fmt::Formatter<'b>) -> Self {
        Self { f, depth: 0, is_first: true }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    pub(super) fn indent(&mut self) {
        self.depth += 1;
    }

    pub(super) fn line(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        if !self.is_first {
            self.f.write_str("\n")?;
        }
        self.is_first = false;
        for _ in 0..self.depth {
            self.f.write_str("  ")?;
        }
        self.f.write_fmt(text)
    }

    pub(super) fn item(&mut self, text: fmt::Arguments<'_>) -> fmt::Result {
        self.f.write_str(", ")?;
        self.f.write_fmt(text)
    }

    /// Writes a line about a layer with only `len` of its `needed` bytes.
    pub(super) fn truncated(&mut self, layer: &str, len: usize, needed: usize) -> fmt::Result {
        self.line(format_args!("{layer}: truncated, {len} of {needed} bytes"))
    }

    /// Writes a line with the length of `bytes`, unless `bytes` is empty.
    pub(super) fn payload(&mut self, bytes: &[u8]) -> fmt::Result {
        if bytes.is_empty() {
            return Ok(());
        }
        self.line(format_args!("Payload: {} bytes", bytes.len()))
    }
}
