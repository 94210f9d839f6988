//! Sets of IPv6 extension header types.

use crate::ip::IpProtocol;

/// A set of types of IPv6 extension headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ExtensionSet(u8);

impl ExtensionSet {
    /// The types that this crate parses: those of IANA's registry "IPv6 Extension Header Types",
    /// without ESP (its next header is encrypted) and the types for experiments. All state their
    /// next header and length.
    pub const TYPES: [IpProtocol; 8] = [
        IpProtocol::HOP_BY_HOP,
        IpProtocol::ROUTING,
        IpProtocol::FRAGMENT,
        IpProtocol::AH,
        IpProtocol::DESTINATION_OPTIONS,
        IpProtocol::MOBILITY,
        IpProtocol::HIP,
        IpProtocol::SHIM6,
    ];

    /// No types.
    pub const EMPTY: Self = Self(0);

    /// All of [`TYPES`](Self::TYPES).
    pub const ALL: Self = Self(0xff);

    /// Returns a bit for each type, in the order of [`TYPES`](Self::TYPES) from the lowest bit.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns whether the set contains `protocol`; false if it is not one of
    /// [`TYPES`](Self::TYPES).
    #[inline]
    pub const fn contains(self, protocol: IpProtocol) -> bool {
        self.0 & Self::bit(protocol) != 0
    }

    /// Adds a type. Ignores a protocol that is not one of [`TYPES`](Self::TYPES).
    #[inline]
    pub const fn insert(&mut self, protocol: IpProtocol) {
        self.0 |= Self::bit(protocol);
    }

    #[inline]
    const fn bit(protocol: IpProtocol) -> u8 {
        match protocol {
            IpProtocol::HOP_BY_HOP => 1 << 0,
            IpProtocol::ROUTING => 1 << 1,
            IpProtocol::FRAGMENT => 1 << 2,
            IpProtocol::AH => 1 << 3,
            IpProtocol::DESTINATION_OPTIONS => 1 << 4,
            IpProtocol::MOBILITY => 1 << 5,
            IpProtocol::HIP => 1 << 6,
            IpProtocol::SHIM6 => 1 << 7,
            _ => 0,
        }
    }
}
