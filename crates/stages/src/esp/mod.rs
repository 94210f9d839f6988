//! `esp-seal` and `esp-open`: IPsec ESP (RFC 4303) between two ports. docs/esp.md documents them.
//!
//! Planning a configuration (`config`) loads the keys and creates the SAs (`sa`). A plan (`plan`)
//! acquires its state file ([`state_file`]) and finds SAs that another plan uses already. The stage
//! of each worker (`seal`, `open`) makes room around each packet of a batch, assigns numbers, and
//! then has the crate `xdpfwd-ipsec` encrypt or decrypt the whole batch.

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
