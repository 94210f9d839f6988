//! The built-in stages of xdpfwd, a folder or a file each. [`builtin`] registers them all.

#![forbid(unsafe_code)]

pub mod esp;
pub mod filter;
mod mac_swap;
mod payload;
mod set_mac;
mod ttl;
mod words;

pub use self::esp::{EspOpen, EspOpenConfig, EspSeal, EspSealConfig};
pub use self::filter::{Filter, FilterConfig};
pub use mac_swap::{MacSwap, MacSwapConfig};
pub use payload::{Payload, PayloadConfig};
pub use set_mac::{SetMac, SetMacConfig};
pub use ttl::{Ttl, TtlConfig};

use xdpfwd_pipeline::{Registry, TableFormat};

/// Returns the kinds of stages of this crate, and registers their drop reasons, so that reports list all of them. Some use
/// [`serde_spanned::Spanned`], so the format has to support it.
pub fn builtin<F: TableFormat>() -> Registry<F> {
    // Planning a stage registers its reasons too, and reports the error if there is one.
    let _ = esp::reasons::register();
    Registry::default()
        .with::<EspOpenConfig>()
        .with::<EspSealConfig>()
        .with::<FilterConfig>()
        .with::<MacSwapConfig>()
        .with::<PayloadConfig>()
        .with::<SetMacConfig>()
        .with::<TtlConfig>()
}

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
