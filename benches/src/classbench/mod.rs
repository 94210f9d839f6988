//! Generates rule sets and traces of packet headers in the style of ClassBench.
//!
//! ClassBench (Taylor and Turner, IEEE/ACM Transactions on Networking 15(3), 2007) describes a rule
//! set by distributions: the shares of protocols, of pairs of port classes, and of prefix lengths
//! for each such pair. Two tries describe how addresses branch, nest and correlate. [`Seed`] holds
//! such distributions, [`generate()`] draws rules, [`trace()`] draws headers that match them, and
//! [`Statistics`] counts the properties that determine a classifier's cost.
//!
//! The built-in seeds `acl`, `fw` and `ipc` have **our own figures**. ClassBench's parameter files
//! (`acl1_seed` and others) are for academic, non-commercial use and are not in this repository;
//! [`Seed::parse`] reads them.
//!
//! Number of tuples ([`Statistics::tuples`]) of a rule set from ClassBench's `db_generator -bc`
//! (jafingerhut/classbench, smoothness and scopes 0) and from [`generate()`], for the same
//! parameter file:
//!
//! | file | ClassBench, 1000 rules | `generate` | ClassBench, 10000 rules | `generate` |
//! |---|---|---|---|---|
//! | acl1 | 54 | 49 | 74 | 73 |
//! | fw1 | 41 | 42 | 53 | 54 |
//! | ipc1 | 151 | 158 | 255 | 254 |
//!
//! ```
//! use xdpfwd_bench::classbench::{Locality, Seed, Statistics, generate, trace};
//!
//! let seed = Seed::built_in("acl").unwrap();
//! let rules = generate(&seed, 500, 1);
//! let packets = trace(&rules, 1000, Locality::Uniform, 0.1, 1);
//! assert_eq!((rules.len(), packets.len()), (500, 1000));
//! println!("{}", Statistics::of(&rules));
//! ```
//!
//! Differences to ClassBench: rules have no TCP flags and no extra fields; there is neither
//! smoothing nor a scope bias; repeated rules are replaced instead of dropped; rules are ordered by
//! their exact scope instead of its integer part.

mod command;
mod generate;
mod parameters;
mod random;
mod rule;
mod seed;
mod seed_file;
mod statistics;
mod trace;
mod trie;

pub use command::{Arguments, run};
pub use generate::generate;
pub use random::Random;
pub use rule::{Ports, Prefix, Protocol, Rule5, read_rules, write_rules};
pub use seed::Seed;
pub use statistics::{Overlaps, Statistics};
pub use trace::{Header, Locality, trace, write_trace};
