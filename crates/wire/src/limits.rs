//! Parser limits.

/// The most VLAN tags that are parsed: a service tag and a customer tag.
/// [`vlan::walk`](crate::vlan::walk) reports more as [`Error::TooManyVlanTags`].
///
/// [`Error::TooManyVlanTags`]: crate::Error::TooManyVlanTags
pub const MAX_TAGS: usize = 2;

/// The most IPv6 extension headers that are parsed. More are reported as
/// [`Error::ExtensionChainTooLong`].
///
/// RFC 8200, section 4.1, recommends at most one header of each type, and two for destination
/// options. That makes six headers of the five types hop-by-hop, destination options, routing,
/// fragment and AH. The parser allows two more.
///
/// [`Error::ExtensionChainTooLong`]: crate::Error::ExtensionChainTooLong
pub const MAX_EXTENSIONS: usize = 8;
