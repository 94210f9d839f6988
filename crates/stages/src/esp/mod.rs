//! `esp-seal` and `esp-open`: IPsec ESP (RFC 4303) between two ports, as in docs/esp.md.
//!
//! Planning (`config`) loads the keys and creates the SAs (`sa`). A plan (`plan`) acquires its
//! state file ([`state_file`]), and shares the state of SAs that another plan uses. The stages of a
//! worker (`seal`, `open`) pass the packets of a batch, one SA at a time, to `xdpfwd-ipsec` for
//! encryption or decryption. `seal` first makes room around each packet, and assigns sequence
//! numbers and IVs.

mod advice;
#[cfg(test)]
mod against_scapy;
mod batch;
mod bypass;
mod config;
pub mod key_file;
mod mss;
mod open;
mod outer;
mod plan;
mod private_file;
pub(crate) mod reasons;
mod sa;
mod seal;
mod selector;
mod spi;
pub mod state;
pub mod state_file;
mod transport;
mod values;

pub use config::{EspOpenConfig, EspSealConfig};
pub use open::EspOpen;
pub use seal::EspSeal;
