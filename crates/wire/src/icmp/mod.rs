//! ICMP messages of IPv4 (RFC 792) and IPv6 (RFC 4443): a view of any message, and error messages
//! about packets that cannot be forwarded.

mod message;
pub(crate) mod packet;

pub use message::{ErrorMessage, Problem, Sources};
pub use packet::{HEADER_LEN, Packet};
