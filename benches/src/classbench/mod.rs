//! Rule sets and traces of headers in the style of ClassBench, to measure a packet classifier with.
//!
//! ClassBench (Taylor and Turner, IEEE/ACM Transactions on Networking 15(3), 2007) describes a real
//! rule set by figures and draws rule sets of any size from them: shares of protocols, of the pair
//! of port classes, of prefix lengths for each of these, and two tries that say how addresses
//! branch, nest and correlate. [`Seed`] holds such figures, [`generate()`] draws rules, [`trace()`]
//! headers that hit them, [`Statistics`] counts what a classifier's cost depends on.
//!
//! Three seeds are built in, `acl`, `fw` and `ipc`, with **figures of our own** of the three kinds
//! that ClassBench has. ClassBench's own parameter files (`acl1_seed` and others) are for academic,
//! non-commercial use and are not in this repository; [`Seed::parse`] reads them.
//!
//! Sets from the same parameter file were compared with those of ClassBench's `db_generator -bc`
//! (as of jafingerhut/classbench, smoothness and scopes 0), one draw of each, in
//! [`Statistics::tuples`] of its set and of ours: acl1 at 1000 rules 54 and 49, at 10000 74 and 73;
//! fw1 41 and 42, 53 and 54; ipc1 151 and 158, 255 and 254.
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
//! Unlike ClassBench: rules have no TCP flags and no extra fields, there is neither smoothing nor a
//! bias of scope, repeated rules are replaced rather than dropped, and the order is by the exact
//! scope rather than its whole part.

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
