//! The header fields of a packet that rules compare.

/// The parsed header fields of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Source and destination address.
    pub addresses: Addresses,
    /// Upper-layer protocol number. For IPv6, the protocol after the extension headers.
    pub protocol: u8,
    /// IPv6 extension headers of the packet.
    pub extensions: ExtensionHeaders,
    /// Upper-layer header fields.
    pub l4: L4,
    /// Whether the packet is a fragment, and which.
    pub fragment: Fragment,
    /// Differentiated services code point, 6 bits (RFC 2474).
    pub dscp: u8,
    /// VLAN identifier of the first tag that is no priority tag (identifier 0), if any.
    pub vlan: Option<u16>,
    /// VLAN identifier of the second such tag, if any.
    pub inner_vlan: Option<u16>,
}

/// A set of IPv6 extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ExtensionHeaders(u8);

impl ExtensionHeaders {
    /// The protocol numbers of the extension headers, in the order of [`from_bits`]: hop-by-hop
    /// options, routing, fragment, AH, destination options, mobility, HIP and shim6.
    ///
    /// [`from_bits`]: Self::from_bits
    pub const PROTOCOLS: [u8; 8] = [0, 43, 44, 51, 60, 135, 139, 140];

    /// Creates a set from one bit for each of [`PROTOCOLS`](Self::PROTOCOLS). The lowest bit stands
    /// for the first protocol.
    #[inline]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// Returns the set of only this protocol; `None` if it is not in [`Self::PROTOCOLS`].
    pub(crate) fn of(protocol: u8) -> Option<Self> {
        let position = Self::PROTOCOLS.iter().position(|other| *other == protocol)?;
        Some(Self(1 << position))
    }

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
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

/// Compared fields of the upper-layer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum L4 {
    /// A protocol without ports or ICMP fields, or a later fragment, which has no upper-layer
    /// header.
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
    /// The first fragment, which contains the upper-layer header.
    First,
    /// A later fragment.
    Later,
}

pub(crate) const V4_WORDS: usize = 3;
pub(crate) const V6_WORDS: usize = 6;

/// A key in the form that the classifier compares: addresses, then [`l4_word`], then [`tag_word`].
pub(crate) type Packed<const N: usize> = [u64; N];

/// The second-to-last word: ports (or ICMP type and code), protocol and fragment state. Bit
/// positions of the fields, and their values before the shift.
pub(crate) mod l4_word {
    /// Also the position of the ICMP type.
    pub(crate) const SOURCE_PORT: u32 = 48;
    /// Also the position of the ICMP code.
    pub(crate) const DESTINATION_PORT: u32 = 32;
    pub(crate) const PROTOCOL: u32 = 24;
    /// States what `SOURCE_PORT` and `DESTINATION_PORT` contain: nothing, ports, or ICMP type and
    /// code.
    pub(crate) const KIND: u32 = 16;
    pub(crate) const KIND_NONE: u64 = 0;
    pub(crate) const KIND_PORTS: u64 = 1;
    pub(crate) const KIND_ICMP: u64 = 2;
    pub(crate) const KIND_MASK: u64 = 3;
    pub(crate) const FRAGMENT: u32 = 8;
    /// In `FRAGMENT`: set in every fragment.
    pub(crate) const IS_FRAGMENT: u64 = 1;
    /// In `FRAGMENT`: set in later fragments.
    pub(crate) const IS_LATER: u64 = 2;
}

/// The last word: VLANs, extension headers, DSCP and TCP control bits. Bit positions of the fields,
/// and their values before the shift.
pub(crate) mod tag_word {
    pub(crate) const INNER_VLAN: u32 = 48;
    pub(crate) const VLAN: u32 = 32;
    /// In `VLAN` and `INNER_VLAN`: the packet has such a tag.
    pub(crate) const IS_TAGGED: u64 = 1 << 12;
    /// One bit for each of [`ExtensionHeaders::PROTOCOLS`](super::ExtensionHeaders::PROTOCOLS).
    pub(crate) const EXTENSIONS: u32 = 24;
    pub(crate) const DSCP: u32 = 16;
    pub(crate) const FLAGS: u32 = 0;
    /// In `FLAGS`: the lowest eight bits are TCP control bits.
    pub(crate) const HAS_FLAGS: u64 = 1 << 8;
}

impl Key {
    /// Creates the key of an unfragmented packet with DSCP 0, without VLANs and extension headers.
    pub const fn new(addresses: Addresses, protocol: u8, l4: L4) -> Self {
        Self {
            addresses,
            protocol,
            extensions: ExtensionHeaders(0),
            l4,
            fragment: Fragment::No,
            dscp: 0,
            vlan: None,
            inner_vlan: None,
        }
    }

    /// Returns the last two words, which are the same for IPv4 and IPv6.
    #[inline]
    pub(crate) fn last_words(&self) -> [u64; 2] {
        use l4_word::{KIND_ICMP, KIND_NONE, KIND_PORTS};
        let (kind, first, second, flags) = match self.l4 {
            L4::None => (KIND_NONE, 0, 0, 0),
            L4::Ports { source, destination } => (KIND_PORTS, source, destination, 0),
            L4::Tcp { source, destination, flags } => {
                (KIND_PORTS, source, destination, tag_word::HAS_FLAGS | u64::from(flags))
            }
            L4::Icmp { kind, code } => (KIND_ICMP, u16::from(kind), u16::from(code), 0),
        };
        let fragment = match self.fragment {
            Fragment::No => 0,
            Fragment::First => l4_word::IS_FRAGMENT,
            Fragment::Later => l4_word::IS_FRAGMENT | l4_word::IS_LATER,
        };
        let tag = |vlan: Option<u16>| vlan.map_or(0, |vlan| tag_word::IS_TAGGED | u64::from(vlan));
        [
            u64::from(first) << l4_word::SOURCE_PORT
                | u64::from(second) << l4_word::DESTINATION_PORT
                | u64::from(self.protocol) << l4_word::PROTOCOL
                | kind << l4_word::KIND
                | fragment << l4_word::FRAGMENT,
            tag(self.inner_vlan) << tag_word::INNER_VLAN
                | tag(self.vlan) << tag_word::VLAN
                | u64::from(self.extensions.bits()) << tag_word::EXTENSIONS
                | u64::from(self.dscp) << tag_word::DSCP
                | flags << tag_word::FLAGS,
        ]
    }
}

#[inline]
pub(crate) fn pack_v4(source: u32, destination: u32, [l4, tag]: [u64; 2]) -> Packed<V4_WORDS> {
    [u64::from(source) << 32 | u64::from(destination), l4, tag]
}

#[inline]
pub(crate) fn pack_v6(source: u128, destination: u128, [l4, tag]: [u64; 2]) -> Packed<V6_WORDS> {
    [(source >> 64) as u64, source as u64, (destination >> 64) as u64, destination as u64, l4, tag]
}
