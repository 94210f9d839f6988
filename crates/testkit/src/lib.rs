//! Test helpers that the crates of xdpfwd share. Not published.

#![allow(missing_docs, reason = "helpers of tests")]
#![forbid(unsafe_code)]

mod folder;
#[cfg(feature = "lab")]
pub mod lab;
pub mod process;
#[cfg(feature = "filter")]
pub mod random_filter;
#[cfg(feature = "wires")]
pub mod wires;

pub use folder::Folder;
use xdpfwd_pipeline::{KindError, PlanCx, Planned, TableFormat};

/// Stage tables in TOML.
#[derive(Debug)]
pub struct Toml;

impl TableFormat for Toml {
    type Error = toml::de::Error;
    type Deserializer<'de> = toml::de::ValueDeserializer<'de>;
}

/// Plans a built-in stage from its table in TOML, without the key `kind`. The stages of ESP need
/// the feature `esp`, and `filter` and `payload` need `filter`.
pub fn plan(kind: &str, table: &str, cx: &PlanCx<'_>) -> Planned<toml::de::Error> {
    let table = toml::de::ValueDeserializer::parse(table).map_err(KindError::Parse)?;
    xdpfwd_stages::builtin::<Toml>().plan(kind, table, cx)
}

/// The example in README.md, compiled as a doctest.
#[cfg(all(doctest, feature = "wires"))]
#[doc = include_str!("../README.md")]
struct Readme;
