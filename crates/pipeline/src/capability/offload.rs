//! Stages whose work the XDP program of the ingress port can do.

use std::sync::Arc;

/// The plan of a stage whose work the XDP program can do. Packets that the XDP program drops never
/// reach user space.
pub trait XdpOffload {
    /// Returns the program and the content of its maps.
    fn image(&self) -> &Arc<XdpImage>;

    /// Returns what happens if the XDP program cannot do the work. True: the data plane does not
    /// start. False: user space does the work.
    fn is_required(&self) -> bool;
}

/// An XDP program that does a stage's work.
#[derive(Clone, Debug)]
pub struct XdpImage {
    /// The name of an embedded program, `bpf/NAME.bpf.c`.
    pub program: &'static str,
    /// Constants that the program was compiled with. For each, the name of a read-only map and the
    /// bytes that it must contain, which is checked before the program is loaded.
    pub constants: Vec<(&'static str, Vec<u8>)>,
    /// The content of the program's maps.
    pub tables: XdpTables,
    /// The per-CPU array map of the row counters: name and number of entries. See
    /// [`Stage::row_counters`](crate::Stage::row_counters).
    pub counters: (&'static str, u32),
    /// A key by which a reload compares images. Images with equal keys give each packet the same
    /// verdict.
    pub verdict_key: String,
}

/// Content of the maps of an XDP program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XdpTables {
    /// Read-only maps, written before the program is loaded: name and bytes.
    pub read_only: Vec<(String, Vec<u8>)>,
    /// Array maps, sized before the program is loaded and filled before it is attached.
    pub arrays: Vec<XdpArray>,
}

/// Content of an array map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpArray {
    /// The name of the map.
    pub map: String,
    /// The number of values.
    pub values: u32,
    /// The values, concatenated.
    pub bytes: Vec<u8>,
}
