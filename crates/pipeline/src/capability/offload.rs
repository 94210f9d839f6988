//! Stages whose work the XDP program of the port can do.

use std::sync::Arc;

/// A stage whose work the XDP program can do, so that packets it drops never reach user space.
pub trait XdpOffload {
    /// Returns the program and the content of its maps.
    fn image(&self) -> &Arc<XdpImage>;

    /// Returns whether the XDP program must do the work: if it cannot, the data plane does not
    /// start.
    fn is_required(&self) -> bool;
}

/// A program for a stage's work, with the content of its maps.
#[derive(Clone, Debug)]
pub struct XdpImage {
    /// The name of an embedded program, `bpf/NAME.bpf.c`.
    pub program: &'static str,
    /// The required content of read-only maps: constants with which both sides were built.
    pub constants: Vec<(&'static str, Vec<u8>)>,
    /// The content to write to the program's maps.
    pub tables: XdpTables,
    /// The per-CPU array map that counts rows, and its number of entries: see
    /// [`Stage::row_counters`](crate::Stage::row_counters).
    pub counters: (&'static str, u32),
    /// Images with equal keys return the same verdicts.
    pub verdict_key: String,
}

/// Content of the maps of an XDP program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpTables {
    /// Read-only data, written before the program is loaded: map and bytes.
    pub read_only: Vec<(String, Vec<u8>)>,
    /// Array maps, sized before the program is loaded and filled before it is attached.
    pub arrays: Vec<XdpArray>,
}

/// Content of an array map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpArray {
    /// The map.
    pub map: String,
    /// The number of values.
    pub values: u32,
    /// The values, concatenated.
    pub bytes: Vec<u8>,
}
