//! The contents of a seed file.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// A seed as in its file, not yet checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SeedFile {
    /// See `Seed::filters`.
    pub(crate) filters: u32,
    pub(crate) protocol: Vec<ProtocolEntry>,
    /// Share, first port, last port.
    #[serde(default)]
    pub(crate) source_ranges: Vec<(f64, u16, u16)>,
    #[serde(default)]
    pub(crate) destination_ranges: Vec<(f64, u16, u16)>,
    /// Share, port.
    #[serde(default)]
    pub(crate) source_exact: Vec<(f64, u16)>,
    #[serde(default)]
    pub(crate) destination_exact: Vec<(f64, u16)>,
    /// By pair of port classes, or `default`: share, lengths of source and destination.
    pub(crate) lengths: BTreeMap<String, Vec<(f64, u8, u8)>>,
    pub(crate) source_nesting: u8,
    pub(crate) destination_nesting: u8,
    /// First level, last level, share of nodes with two children, `Level::skew`.
    pub(crate) source_branching: Vec<(u8, u8, f64, f64)>,
    pub(crate) destination_branching: Vec<(u8, u8, f64, f64)>,
    /// First level, last level, probability as in `Seed::correlation`.
    pub(crate) correlation: Vec<(u8, u8, f64)>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProtocolEntry {
    /// Protocol number; `None`: any protocol.
    pub(crate) number: Option<u8>,
    pub(crate) share: f64,
    /// Shares by pair of port classes, such as `wc-em`.
    pub(crate) ports: BTreeMap<String, f64>,
}

impl SeedFile {
    pub(crate) fn correlation(&self) -> Result<[f64; 33]> {
        let mut levels = [0.0; 33];
        for &(first, last, probability) in &self.correlation {
            ensure!(
                first <= last && last <= 32,
                "correlation: levels {first} to {last} are not from 0 to 32"
            );
            ensure!(
                (0.0..=1.0).contains(&probability),
                "correlation: {probability} is not from 0 to 1"
            );
            levels[usize::from(first)..=usize::from(last)].fill(probability);
        }
        Ok(levels)
    }
}
