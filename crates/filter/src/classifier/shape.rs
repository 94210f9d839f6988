//! The size and shape of a classifier.

/// The tuples and memory of a classifier, for reports and decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// The tuples of IPv4, in the order in which they are looked into.
    pub v4: Vec<TupleShape>,
    /// The tuples of IPv6, likewise.
    pub v6: Vec<TupleShape>,
    /// Bytes of memory.
    pub memory: usize,
}

/// One tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleShape {
    /// Bits of the source address that are looked at.
    pub source: u8,
    /// Bits of the destination address.
    pub destination: u8,
    /// Bits of the source port.
    pub source_port: u8,
    /// Bits of the destination port.
    pub destination_port: u8,
    /// Whether the protocol is looked at.
    pub protocol: bool,
    /// Rules in it.
    pub rules: usize,
    /// Rules of its longest bucket.
    pub longest: usize,
}
