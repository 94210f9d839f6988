//! Reads, writes and prints packet headers, from Ethernet to TCP, UDP, ICMP and GTP-U.
//!
//! Each protocol has a module with
//!
//! - a view, `Packet<T>` over any `T: AsRef<[u8]>` (`Frame<T>` for Ethernet, `Tag<T>` for VLAN);
//! - a `Repr`, the fields of a header: `Repr::parse` reads them from a view, and `Repr::emit`
//!   writes them to a buffer. Emitting a parsed `Repr` gives the same bytes, except where
//!   documented.
//!
//! `new_checked` creates a view. It compares every stated length with the buffer, so the accessors
//! of the view never panic. A setter that could invalidate these checks repeats them.
//!
//! `emit` writes one header; the payload need not be in the buffer. `emit_with_checksum` of
//! [`udp::Repr`], [`tcp::Repr`] and [`icmp::Repr`] also computes the checksum over the payload,
//! which must be in the buffer. On error, both write nothing. [`fill_checksums`] computes the
//! checksums of a complete packet.
//!
//! A [`HeaderStack`] writes several headers before a payload, with their lengths, types and
//! checksums. The [`gtpu`] module has an example.
//!
//! [`Headers`] parses all headers of a frame at once. [`Pretty`] prints a frame, one line for each
//! layer.
//!
//! **Reading, writing and printing never panic**, whatever the bytes are. (If `T` is your own type,
//! `T::as_ref` must return the same slice on each call, as for slices, arrays, `Vec` and frames.)
//! Only [`HeaderStack::packet`] allocates memory. Lengths and offsets are in bytes.
//!
//! ```
//! use xdpfwd_wire::{Headers, IpProtocol, Status, ipv4};
//!
//! let mut frame = [0; 60]; // 42 bytes of headers, then 18 bytes of Ethernet padding
//! frame[12..14].copy_from_slice(&[0x08, 0x00]);
//! ipv4::Repr {
//!     payload_len: 8,
//!     protocol: IpProtocol::UDP,
//!     source: [10, 0, 0, 1].into(),
//!     destination: [10, 0, 0, 2].into(),
//!     ..ipv4::Repr::default()
//! }
//! .emit(&mut frame[14..])?;
//! frame[34..42].copy_from_slice(&[0x04, 0x00, 0x08, 0x68, 0, 8, 0, 0]);
//!
//! let headers = Headers::parse(&frame);
//! assert_eq!(headers.status, Status::Parsed);
//! // Offsets of the IP header, of the UDP header and of the end of the IP packet.
//! assert_eq!((headers.l3_offset, headers.l4_offset, headers.l3_end), (14, 34, 42));
//! assert_eq!((headers.source_port, headers.destination_port), (1024, 2152));
//! # Ok::<(), xdpfwd_wire::Error>(())
//! ```

#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
mod error;
pub mod ethernet;
mod field;
mod fill;
mod flow;
pub mod gtpu;
mod headers;
pub mod icmp;
mod ip;
pub mod ipv4;
pub mod ipv6;
mod limits;
mod mac;
mod pretty;
mod stack;
pub mod tcp;
pub mod udp;
pub mod vlan;

pub use error::Error;
pub use ethernet::EtherType;
pub use fill::{fill_checksums, fill_upper_checksum};
pub use headers::{Headers, Layer, Status};
pub use ip::{Addresses, Fragment, IpProtocol, IpVersion};
pub use mac::{MacAddr, ParseMacAddrError};
pub use pretty::Pretty;
pub use stack::{Header, HeaderStack};
pub use vlan::VlanId;

/// The examples in README.md, run as doctests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
