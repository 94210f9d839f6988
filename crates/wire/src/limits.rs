//! Parser limits.

/// The maximum number of VLAN tags: a service tag and a customer tag.
/// [`vlan::walk`](crate::vlan::walk) reports a third one as [`Error::TooManyVlanTags`].
///
/// [`Error::TooManyVlanTags`]: crate::Error::TooManyVlanTags
pub const MAX_TAGS: usize = 2;

/// The maximum number of IPv6 extension headers that are walked. One more is reported as
/// [`Error::ExtensionChainTooLong`], and the upper protocol stays unknown.
///
/// RFC 8200, section 4.1, recommends at most one of each kind and two of destination options: six
/// of those walked here.
///
/// [`Error::ExtensionChainTooLong`]: crate::Error::ExtensionChainTooLong
pub const MAX_EXTENSIONS: usize = 8;
