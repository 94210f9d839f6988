use core::fmt;

use crate::limits::{MAX_EXTENSIONS, MAX_TAGS};

/// The reason why a header could not be read or written.
///
/// The enum is exhaustive, so that a caller can count dropped packets with one counter per variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The buffer is shorter than the header, or shorter than a length that the header states.
    Truncated,
    /// A field has a value that the protocol does not allow, or fields contradict each other.
    Malformed,
    /// The frame has more than [`vlan::MAX_TAGS`](crate::vlan::MAX_TAGS) VLAN tags. The bytes after
    /// these tags were not parsed.
    TooManyVlanTags,
    /// The packet has more than [`ipv6::MAX_EXTENSIONS`](crate::ipv6::MAX_EXTENSIONS) or
    /// [`gtpu::MAX_EXTENSIONS`](crate::gtpu::MAX_EXTENSIONS) extension headers. The bytes after
    /// these headers were not parsed.
    ExtensionChainTooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => f.write_str("the buffer ends before the packet does"),
            Error::Malformed => {
                f.write_str("a header field has a value its protocol does not allow")
            }
            Error::TooManyVlanTags => {
                write!(f, "more than {} VLAN tags", MAX_TAGS)
            }
            Error::ExtensionChainTooLong => {
                write!(f, "more than {} extension headers", MAX_EXTENSIONS)
            }
        }
    }
}

impl core::error::Error for Error {}
