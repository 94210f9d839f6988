//! The size and shape of a classifier.

/// The tuples and the memory of a classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Tuples of IPv4, in search order.
    pub v4: Vec<TupleShape>,
    /// Tuples of IPv6, in search order.
    pub v6: Vec<TupleShape>,
    /// Memory in bytes.
    pub memory: usize,
}

/// A tuple: the bits that it compares, and its number of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TupleShape {
    /// Compared leading bits of the source address.
    pub source: u8,
    /// Compared leading bits of the destination address.
    pub destination: u8,
    /// Compared leading bits of the source port.
    pub source_port: u8,
    /// Compared leading bits of the destination port.
    pub destination_port: u8,
    /// Whether the protocol is compared.
    pub protocol: bool,
    /// Number of rules in the tuple.
    pub rules: usize,
    /// Number of rules in the longest bucket.
    pub longest_bucket: usize,
}
