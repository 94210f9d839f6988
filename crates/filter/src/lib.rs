//! Packet filter rules: parsers, and a fast search for the first matching rule.
//!
//! A [`Rule`] matches a [`Key`], which holds the parsed header fields of a packet. This crate
//! parses no packets and does no I/O. [`parse`] reads rules in xdpfwd's rule language,
//! [`parse_classbench`] in the ClassBench format. A [`Classifier`] finds the first matching rule
//! among thousands; tests compare its results with [`Rule::matches`]. A [`Signature`] is a rule
//! with a byte pattern. A [`Scanner`] searches a payload for many patterns in one pass.

#![forbid(unsafe_code)]

mod classbench;
mod classifier;
mod key;
mod language;
mod rule;
mod scanner;
mod shadow;
mod signature;

pub use classbench::{ClassBench, parse_classbench};
pub use classifier::{
    Classifier, FlowCache, Image, KernelLimitError, Matches, Shape, SpaceImage, Table, TupleShape,
};
pub use key::{Addresses, ExtensionHeaders, Fragment, Key, L4};
pub use language::{Problem, parse, parse_rule, parse_signature, parse_signatures};
pub use rule::{FragmentMatch, Limit, Match, Per, Rule, TcpFlags, Unit, Verdict, Version};
pub use scanner::{Hits, Scanner, ScannerError};
pub use shadow::{Shadowed, shadowed};
pub use signature::Signature;

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
