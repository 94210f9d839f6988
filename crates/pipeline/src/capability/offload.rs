//! Work of a stage that the XDP program of its port can do.

use std::sync::Arc;

/// A stage whose work the XDP program can do, so that a packet which it drops never comes to user
/// space.
pub trait XdpOffload {
    /// Returns what the program needs.
    fn image(&self) -> &Arc<XdpImage>;

    /// Returns whether the XDP program has to do the work: if it cannot, the data plane must not
    /// start.
    fn is_required(&self) -> bool;
}

/// What an XDP program needs to do a stage's work.
#[derive(Clone, Debug)]
pub struct XdpImage {
    /// The name of the program among those that the engine embeds, `bpf/NAME.bpf.c`.
    pub program: &'static str,
    /// Read-only maps whose content in the program has to be this: the constants that both sides
    /// were built with.
    pub constants: Vec<(&'static str, Vec<u8>)>,
    /// What the program's maps have to hold.
    pub tables: XdpTables,
    /// The per-CPU array map that counts rows, and its number of entries: see
    /// [`Stage::row_counters`](crate::Stage::row_counters).
    pub counters: (&'static str, u32),
    /// Two images with equal keys come to the same verdicts.
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
    /// The values, one behind the other.
    pub bytes: Vec<u8>,
}
