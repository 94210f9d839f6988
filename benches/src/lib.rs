//! What the measurements of xdpfwd share with programs outside of the `xdpfwd-bench` binary: rule sets and traces.
#![forbid(unsafe_code)]

pub mod classbench;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
