//! Test helpers that the crates of xdpfwd share.

#![allow(missing_docs, reason = "helpers of tests")]
#![forbid(unsafe_code)]

pub mod esp_state;
mod folder;
#[cfg(feature = "lab")]
pub mod lab;
pub mod process;
#[cfg(feature = "filter")]
pub mod random_filter;
#[cfg(feature = "wires")]
pub mod wires;

pub use folder::Folder;
use xdpfwd_pipeline::{PlanCx, PlanResult, StagePlanError, TableFormat};

/// The format TOML, in which [`plan`] reads the configuration of a stage.
#[derive(Debug)]
pub struct Toml;

impl TableFormat for Toml {
    type Error = toml::de::Error;
    type Deserializer<'de> = toml::de::ValueDeserializer<'de>;
}

/// Returns the plan (validated configuration) of a built-in stage. `table` is the stage's
/// configuration as a TOML inline table, without `kind`. The kinds `esp-seal` and `esp-open` need
/// the feature `esp`; `filter` and `payload` need `filter`.
pub fn plan(kind: &str, table: &str, cx: &PlanCx<'_>) -> PlanResult<toml::de::Error> {
    let table = toml::de::ValueDeserializer::parse(table).map_err(StagePlanError::Parse)?;
    xdpfwd_stages::builtin::<Toml>().plan(kind, table, cx)
}

/// The example in README.md, compiled as a doctest.
#[cfg(all(doctest, feature = "wires"))]
#[doc = include_str!("../README.md")]
struct Readme;
