use core::fmt;

use crate::limits::{MAX_EXTENSIONS, MAX_TAGS};

/// Why a header could not be read or written.
///
/// The enum is not `#[non_exhaustive]`, so a caller can have one drop counter per variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The buffer is shorter than the header or than a length stated in it, or a header exceeds its
    /// packet.
    Truncated,
    /// A field has a value that its protocol does not allow, two fields contradict each other, or a
    /// value to be written does not fit into its field. Also returned if a function does not
    /// support this kind of packet.
    Malformed,
    /// The frame has more than [`vlan::MAX_TAGS`](crate::vlan::MAX_TAGS) VLAN tags.
    TooManyVlanTags,
    /// The packet has more than [`ipv6::MAX_EXTENSIONS`](crate::ipv6::MAX_EXTENSIONS) or
    /// [`gtpu::MAX_EXTENSIONS`](crate::gtpu::MAX_EXTENSIONS) extension headers.
    ExtensionChainTooLong,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Truncated => {
                f.write_str("the buffer is too short for the packet or its headers")
            }
            Error::Malformed => {
                f.write_str("a header field has a value that its protocol does not allow")
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
