//! Code that the program `xdpfwd-bench` shares with the other benchmarks: rule sets, traces, and
//! the description of the machine.
#![forbid(unsafe_code)]

pub mod classbench;
pub mod machine;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
