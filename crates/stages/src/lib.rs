//! The built-in stages of xdpfwd. [`builtin`] always registers `mac-swap`, `memcpy`, `set-mac` and
//! `ttl`. The cargo feature `esp` adds `esp-seal` and `esp-open`; `filter` adds `filter` and
//! `payload`.

#![forbid(unsafe_code)]

#[cfg(any(feature = "esp", feature = "filter"))]
mod enum_names;
#[cfg(feature = "esp")]
pub mod esp;
#[cfg(feature = "filter")]
pub mod filter;
mod mac_swap;
mod memcpy;
#[cfg(feature = "filter")]
mod payload;
mod set_mac;
mod ttl;

#[cfg(feature = "esp")]
pub use self::esp::{EspOpen, EspOpenConfig, EspSeal, EspSealConfig};
#[cfg(feature = "filter")]
pub use self::filter::{Filter, FilterConfig};
pub use mac_swap::{MacSwap, MacSwapConfig};
pub use memcpy::{Memcpy, MemcpyConfig};
#[cfg(feature = "filter")]
pub use payload::{Payload, PayloadConfig};
pub use set_mac::{SetMac, SetMacConfig};
pub use ttl::{Ttl, TtlConfig};

use xdpfwd_pipeline::{Registry, TableFormat};

/// Returns the stage kinds in this build. The configuration format `F` must support
/// `serde_spanned::Spanned`.
///
/// With the feature `esp`, also registers the drop reasons of ESP, so that every report lists them.
pub fn builtin<F: TableFormat>() -> Registry<F> {
    let registry = Registry::default()
        .with::<MacSwapConfig>()
        .with::<MemcpyConfig>()
        .with::<SetMacConfig>()
        .with::<TtlConfig>();
    #[cfg(feature = "esp")]
    let registry = {
        // An error is ignored here: planning an ESP stage tries again, and reports it.
        let _ = esp::reasons::register();
        registry.with::<EspOpenConfig>().with::<EspSealConfig>()
    };
    #[cfg(feature = "filter")]
    let registry = registry.with::<FilterConfig>().with::<PayloadConfig>();
    registry
}

/// Stage kind, cargo feature, and whether this build has the feature.
const OPTIONAL: [(&str, &str, bool); 4] = [
    ("esp-open", "esp", cfg!(feature = "esp")),
    ("esp-seal", "esp", cfg!(feature = "esp")),
    ("filter", "filter", cfg!(feature = "filter")),
    ("payload", "filter", cfg!(feature = "filter")),
];

/// Returns the kinds that this build leaves out, each with the cargo feature that adds it.
pub fn omitted_kinds() -> impl Iterator<Item = (&'static str, &'static str)> {
    OPTIONAL
        .into_iter()
        .filter(|(_, _, is_built)| !is_built)
        .map(|(kind, feature, _)| (kind, feature))
}

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests {
    use super::*;

    struct Json;

    impl TableFormat for Json {
        type Error = serde_json::Error;
        type Deserializer<'de> = serde_json::Value;
    }

    #[test]
    fn optional_kind_is_registered_exactly_when_its_feature_is_enabled() {
        let registered: Vec<&str> = builtin::<Json>().kinds().collect();
        for (kind, _, is_built) in OPTIONAL {
            assert_eq!(registered.contains(&kind), is_built, "{kind}");
        }
        let not_optional = registered
            .iter()
            .filter(|kind| !OPTIONAL.iter().any(|(optional, ..)| optional == *kind));
        assert_eq!(not_optional.collect::<Vec<_>>(), [&"mac-swap", &"memcpy", &"set-mac", &"ttl"]);
        assert!(omitted_kinds().all(|(kind, _)| !registered.contains(&kind)));
    }
}
