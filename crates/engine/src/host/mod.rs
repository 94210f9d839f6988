//! Interfaces, drivers, addresses and routes of this host, as the kernel reports them.

pub(crate) mod addresses;
pub(crate) mod driver;
mod generic;
pub(crate) mod interface;
pub(crate) mod link;
pub(crate) mod lockout;
mod netlink;
pub(crate) mod vlan;

pub(crate) use netlink::Monitor;
