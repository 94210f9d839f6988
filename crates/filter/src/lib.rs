//! Packet filter rules: what they say, how they are written, and finding the first that matches,
//! fast.
//!
//! A [`Rule`] matches a [`Key`], which is what is known of a packet: this crate sees no packets and
//! does no I/O. Rules come from their own language ([`parse`]) or from ClassBench's format
//! ([`parse_classbench`]). [`Rule::matches`] says what a rule means; a [`Classifier`] finds the
//! first of thousands that matches and is tested against it. A [`Signature`] is a rule with a
//! pattern of bytes; a [`Scanner`] looks for many in one pass.

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
    Classifier, FlowCache, Image, NotForKernel, Shape, SpaceImage, Table, TupleShape,
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
