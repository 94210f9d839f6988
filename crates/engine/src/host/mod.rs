//! What the kernel says about this host: its interfaces, drivers, addresses and routes.

pub(crate) mod addresses;
pub(crate) mod driver;
mod generic;
pub(crate) mod interface;
pub(crate) mod lockout;
mod netlink;

pub(crate) use netlink::Monitor;
