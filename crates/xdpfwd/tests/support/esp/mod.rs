//! Two instances of xdpfwd back to back, with a wire between them that tests can capture and cut.
//!
//! ```text
//!  gen      fwd                       wire                      fwd                    sink
//!  gen0 ═══ fwd0 [xdpfwd 0] wan0 ═══ tap0 ─ bridge ─ tap1 ═══ wan1 [xdpfwd 1] fwd1 ═══ sink0
//! ```
//!
//! Packets from gen0 to sink0 go forth, packets from sink0 go back. In the bridge the kernel
//! forwards packets, so packet sockets see them; on a port of xdpfwd they would not.

mod capture;
mod lab;
mod report;
mod setup;
mod traffic;

pub use capture::{Esp, Kind, Tap, kinds, pcap};
pub use lab::{A, B, Lab, key, new_state};
pub use report::{drops, latest, received};
pub use setup::{OUTER_4, OUTER_6, Setup, spi};
pub use traffic::{Sender, Server, inject};
