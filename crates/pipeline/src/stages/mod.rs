//! The stages that come with this crate, one a file.

pub mod esp;
pub mod filter;
mod mac_swap;
mod payload;
mod set_mac;
mod ttl;

pub use self::esp::{EspOpen, EspOpenConfig, EspSeal, EspSealConfig};
pub use self::filter::{Filter, FilterConfig};
pub use mac_swap::{MacSwap, MacSwapConfig};
pub use payload::{Payload, PayloadConfig};
pub use set_mac::{SetMac, SetMacConfig};
pub use ttl::{Ttl, TtlConfig};
