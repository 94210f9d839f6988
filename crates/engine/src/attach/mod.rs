//! From an interface to the sockets of its port: XDP programs, their maps, and what prevents them
//! from being attached.

pub(crate) mod attachment;
pub(crate) mod conflicts;
pub(crate) mod native;
pub(crate) mod offload;
pub(crate) mod program;
