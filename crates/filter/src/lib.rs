//! Packet filter rules: their language, and a fast search for the first match.
//!
//! A [`Rule`] matches a [`Key`], which holds the parsed fields of a packet: this crate reads no
//! packets and does no I/O. [`parse`] reads rules in their own language, [`parse_classbench`] in
//! the ClassBench format. [`Rule::matches`] defines the meaning of a rule; a [`Classifier`] finds
//! the first match among thousands of rules and is tested against it. A [`Signature`] is a rule
//! with a byte pattern; a [`Scanner`] searches for many patterns in one pass.

#![forbid(unsafe_code)]

mod classbench;
mod classifier;
mod key;
mod language;
mod rule;
mod shadow;
mod signature;

pub use classbench::{ClassBench, parse_classbench};
pub use classifier::{
    Classifier, FlowCache, Image, KernelLimitError, Shape, SpaceImage, Table, TupleShape,
};
pub use key::{Addresses, Fragment, Key, L4};
pub use language::{Problem, parse, parse_rule, parse_signature, parse_signatures};
pub use rule::{Fragments, Limit, Match, Per, Rule, TcpFlags, Unit, Verdict, Version};
pub use shadow::{Shadowed, shadowed};
pub use signature::{Hits, Scanner, Signature};

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
