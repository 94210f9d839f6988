//! ICMP messages of IPv4 (RFC 792) and IPv6 (RFC 4443), and error messages about packets that
//! cannot be forwarded.

mod kind;
mod message;
pub(crate) mod packet;
mod repr;

pub use kind::{kind_name, v4, v6};
pub use message::{ErrorMessage, Problem, Sources};
pub use packet::{HEADER_LEN, Packet};
pub use repr::Repr;
