//! How packets reach the sockets of a port: XDP programs and their maps, or packet sockets. Also
//! the reasons why a program cannot be attached.

pub(crate) mod attachment;
pub(crate) mod conflicts;
pub(crate) mod native;
pub(crate) mod offload;
pub(crate) mod program;
