//! The fields of a packet that rules compare.

/// The packet fields that rules match, already parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source and destination address.
    pub addresses: Addresses,
    /// Protocol of IPv4; for IPv6, the protocol after the extension headers.
    pub protocol: u8,
    /// Fields of the upper protocol's header.
    pub l4: L4,
    /// Whether the packet is a fragment, and which one.
    pub fragment: Fragment,
    /// Differentiated services code point, 6 bits (RFC 2474).
    pub dscp: u8,
    /// VLAN identifier of the outermost tag.
    pub vlan: Option<u16>,
}

/// Source and destination address of one IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        source: u32,
        /// Destination.
        destination: u32,
    },
    /// IPv6.
    V6 {
        /// Source.
        source: u128,
        /// Destination.
        destination: u128,
    },
}

/// Fields of the upper protocol's header. A later fragment has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4 {
    /// No field that rules match.
    None,
    /// Ports of UDP or SCTP.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// Ports and control bits of TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The control bits, CWR to FIN (RFC 9293).
        flags: u8,
    },
    /// Type and code of ICMP or ICMPv6.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
    },
}

/// Whether a packet is a fragment, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Not a fragment.
    No,
    /// The first fragment, which has the upper protocol's header.
    First,
    /// A later fragment.
    Later,
}

/// Words of a packed IPv4 key.
pub(crate) const V4: usize = 3;
/// Words of a packed IPv6 key.
pub(crate) const V6: usize = 6;

/// A key as the classifier compares it. The addresses come first. The last word but one has ports
/// (or ICMP type and code), protocol and fragment; the last word has rarely used fields.
pub(crate) type Packed<const N: usize> = [u64; N];

/// Bit positions in the last word but one.
pub(crate) mod ports {
    pub(crate) const SOURCE: u32 = 48;
    pub(crate) const DESTINATION: u32 = 32;
    pub(crate) const PROTOCOL: u32 = 24;
    /// The kind of the two upper fields.
    pub(crate) const KIND: u32 = 16;
    pub(crate) const KIND_NONE: u64 = 0;
    pub(crate) const KIND_PORTS: u64 = 1;
    pub(crate) const KIND_ICMP: u64 = 2;
    pub(crate) const KIND_MASK: u64 = 3;
    pub(crate) const FRAGMENT: u32 = 8;
    /// Set in any fragment.
    pub(crate) const IS_FRAGMENT: u64 = 1;
    /// Set in a later fragment.
    pub(crate) const IS_LATER: u64 = 2;
}

/// Bit positions in the last word.
pub(crate) mod rest {
    pub(crate) const VLAN: u32 = 32;
    pub(crate) const IS_TAGGED: u64 = 1 << 12;
    pub(crate) const DSCP: u32 = 16;
    pub(crate) const FLAGS: u32 = 0;
    /// Set if the lowest eight bits are TCP control bits.
    pub(crate) const HAS_FLAGS: u64 = 1 << 8;
}

impl Key {
    /// Returns the two words that both versions have.
    #[inline]
    pub(crate) fn upper(&self) -> [u64; 2] {
        use ports::{KIND_ICMP, KIND_NONE, KIND_PORTS};
        let (kind, first, second, flags) = match self.l4 {
            L4::None => (KIND_NONE, 0, 0, 0),
            L4::Ports { source, destination } => (KIND_PORTS, source, destination, 0),
            L4::Tcp { source, destination, flags } => {
                (KIND_PORTS, source, destination, rest::HAS_FLAGS | u64::from(flags))
            }
            L4::Icmp { kind, code } => (KIND_ICMP, u16::from(kind), u16::from(code), 0),
        };
        let fragment = match self.fragment {
            Fragment::No => 0,
            Fragment::First => ports::IS_FRAGMENT,
            Fragment::Later => ports::IS_FRAGMENT | ports::IS_LATER,
        };
        let vlan = self.vlan.map_or(0, |vlan| rest::IS_TAGGED | u64::from(vlan));
        [
            u64::from(first) << ports::SOURCE
                | u64::from(second) << ports::DESTINATION
                | u64::from(self.protocol) << ports::PROTOCOL
                | kind << ports::KIND
                | fragment << ports::FRAGMENT,
            vlan << rest::VLAN | u64::from(self.dscp) << rest::DSCP | flags << rest::FLAGS,
        ]
    }
}

/// Returns the words of two IPv4 addresses.
#[inline]
pub(crate) fn words_v4(source: u32, destination: u32, [a, b]: [u64; 2]) -> Packed<V4> {
    [u64::from(source) << 32 | u64::from(destination), a, b]
}

/// Returns the words of two IPv6 addresses.
#[inline]
pub(crate) fn words_v6(source: u128, destination: u128, [a, b]: [u64; 2]) -> Packed<V6> {
    [(source >> 64) as u64, source as u64, (destination >> 64) as u64, destination as u64, a, b]
}
