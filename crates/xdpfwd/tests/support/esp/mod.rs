//! Two instances of xdpfwd back to back, with a wire between them that tests can capture and cut.
//!
//! ```text
//!  gen      fwd                       wire                      fwd                    sink
//!  gen0 ═══ fwd0 [xdpfwd 0] wan0 ═══ tap0 ─ bridge ─ tap1 ═══ wan1 [xdpfwd 1] fwd1 ═══ sink0
//! ```
//!
//! Side 0 is the host gen with xdpfwd 0, side 1 the host sink with xdpfwd 1. The kernel forwards
//! packets through the bridge, so packet sockets on tap0 and tap1 see them. Packet sockets on a
//! port of xdpfwd would not.

mod capture;
mod lab;
mod report;
mod setup;
mod traffic;

pub use capture::{Esp, Kind, Tap, count_kinds, write_pcap};
pub use lab::{GEN_ADDRESSES, Lab, SINK_ADDRESSES, key, new_state};
pub use report::{drops, latest, received};
pub use setup::{OUTER_4, OUTER_6, Setup, spi};
pub use traffic::{Iperf3Server, Sender, inject};
