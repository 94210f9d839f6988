//! Checked views of packet headers, and [`Headers`]: what is parsed once of each frame.
//!
//! Each protocol has a file and a view in it, `Packet<T>` over any `T: AsRef<[u8]>`. A view is made by `new_checked`,
//! which compares every length the packet states of itself with the bytes that are there. After it **no accessor
//! panics**, as long as `T` gives the same slice each time it is asked (slices, arrays, `Vec` and frames do). A setter
//! that could break what was checked checks again and returns an [`Error`]; the other setters cannot.
//!
//! Nothing here allocates, and nothing here panics, whatever the bytes are.
//!
//! ```
//! use xdpfwd_wire::{Headers, IpProtocol, Status, ipv4};
//!
//! let mut frame = [0; 60]; // 18 bytes of Ethernet padding behind the datagram's 42
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
//! assert_eq!((headers.l3_offset, headers.l4_offset, headers.l3_end), (14, 34, 42));
//! assert_eq!((headers.source_port, headers.destination_port), (1024, 2152));
//! # Ok::<(), xdpfwd_wire::Error>(())
//! ```

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
pub use vlan::VlanId;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
