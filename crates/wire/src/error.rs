use core::fmt;

use crate::limits::{MAX_EXTENSIONS, MAX_TAGS};

/// Why a view could not be made of a buffer, or a setter refused its value.
///
/// The enum is closed: a caller that drops and counts needs one counter for each, and no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The buffer ends before the header does, or before the end that the header states.
    Truncated,
    /// A field has a value that the protocol does not allow, or fields contradict each other.
    Malformed,
    /// More than [`vlan::MAX_TAGS`](crate::vlan::MAX_TAGS) VLAN tags; what follows them was not looked at.
    TooManyVlanTags,
    /// More than [`ipv6::MAX_EXTENSIONS`](crate::ipv6::MAX_EXTENSIONS) extension headers; the upper protocol was not
    /// reached.
    ExtensionChainTooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("the buffer ends before the packet does"),
            Error::Malformed => f.write_str("a header field has a value its protocol does not allow"),
            Error::TooManyVlanTags => {
                write!(f, "more than {} VLAN tags", MAX_TAGS)
            }
            Error::ExtensionChainTooLong => {
                write!(f, "more than {} IPv6 extension headers", MAX_EXTENSIONS)
            }
        }
    }
}

impl core::error::Error for Error {}
