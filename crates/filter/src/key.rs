//! What is known of a packet.

/// What rules look at, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source and destination.
    pub addresses: Addresses,
    /// IPv4's protocol; of IPv6 what follows its extension headers.
    pub protocol: u8,
    /// What the upper protocol's header says.
    pub l4: L4,
    /// Whether it is a fragment, and which.
    pub fragment: Fragment,
    /// Differentiated services code point, 6 bits (RFC 2474).
    pub dscp: u8,
    /// VLAN of the outermost tag.
    pub vlan: Option<u16>,
}

/// Source and destination, both of one IP version.
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

/// What the header of the upper protocol says. A later fragment has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4 {
    /// Nothing that rules look at.
    None,
    /// UDP's and SCTP's ports.
    Ports {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// TCP's ports and control bits.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// The control bits, CWR to FIN (RFC 9293).
        flags: u8,
    },
    /// ICMP's and ICMPv6's message.
    Icmp {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
    },
}

/// Whether a packet is a fragment, and which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// It is whole.
    No,
    /// The first, which has the upper protocol's header.
    First,
    /// Another.
    Later,
}

/// Words of a packed key of IPv4.
pub(crate) const V4: usize = 3;
/// Words of a packed key of IPv6.
pub(crate) const V6: usize = 6;

/// A key as the classifier compares it: bit by bit. The addresses first; the last word but one has
/// ports (or ICMP's type and code), protocol and fragment; the last one has what is rarely asked
/// for.
pub(crate) type Packed<const N: usize> = [u64; N];

/// Where things are in the last word but one.
pub(crate) mod ports {
    pub(crate) const SOURCE: u32 = 48;
    pub(crate) const DESTINATION: u32 = 32;
    pub(crate) const PROTOCOL: u32 = 24;
    /// What the two upper fields are.
    pub(crate) const KIND: u32 = 16;
    pub(crate) const KIND_NONE: u64 = 0;
    pub(crate) const KIND_PORTS: u64 = 1;
    pub(crate) const KIND_ICMP: u64 = 2;
    pub(crate) const KIND_MASK: u64 = 3;
    pub(crate) const FRAGMENT: u32 = 8;
    /// Any fragment.
    pub(crate) const IS_FRAGMENT: u64 = 1;
    /// A later one.
    pub(crate) const IS_LATER: u64 = 2;
}

/// Where things are in the last word.
pub(crate) mod rest {
    pub(crate) const VLAN: u32 = 32;
    pub(crate) const IS_TAGGED: u64 = 1 << 12;
    pub(crate) const DSCP: u32 = 16;
    pub(crate) const FLAGS: u32 = 0;
    /// Set if the lowest eight bits are TCP's control bits.
    pub(crate) const HAS_FLAGS: u64 = 1 << 8;
}

impl Key {
    /// The two words that both versions have.
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

/// The words of two IPv4 addresses.
#[inline]
pub(crate) fn words_v4(source: u32, destination: u32, [a, b]: [u64; 2]) -> Packed<V4> {
    [u64::from(source) << 32 | u64::from(destination), a, b]
}

/// The words of two IPv6 addresses.
#[inline]
pub(crate) fn words_v6(source: u128, destination: u128, [a, b]: [u64; 2]) -> Packed<V6> {
    [(source >> 64) as u64, source as u64, (destination >> 64) as u64, destination as u64, a, b]
}
