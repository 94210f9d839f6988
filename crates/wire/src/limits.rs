//! Parser limits.

/// The maximum number of VLAN tags that are parsed, enough for a service tag and a customer tag.
/// [`vlan::walk`](crate::vlan::walk) reports a third tag as [`Error::TooManyVlanTags`].
///
/// [`Error::TooManyVlanTags`]: crate::Error::TooManyVlanTags
pub const MAX_TAGS: usize = 2;

/// The maximum number of IPv6 extension headers that are parsed. A packet with more of them is
/// reported as [`Error::ExtensionChainTooLong`], and its upper protocol stays unknown.
///
/// RFC 8200, section 4.1, recommends at most one header of each type, and two for destination
/// options. This crate parses five types, so a packet that follows the recommendation has at most
/// six headers of these types; two more are allowed.
///
/// [`Error::ExtensionChainTooLong`]: crate::Error::ExtensionChainTooLong
pub const MAX_EXTENSIONS: usize = 8;
