//! Code shared by `xdpfwd-bench` and the other benchmarks: rule sets, traces, the machine.
#![forbid(unsafe_code)]

pub mod classbench;
pub mod machine;
pub mod results;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
