//! What the measurements of xdpfwd share with programs outside of the `xdpfwd-bench` binary: rule sets and traces.
#![forbid(unsafe_code)]

pub mod classbench;
