//! The network lab of xdpfwd's demo, tests and benchmarks.
//!
//! ```text
//!  namespace gen          namespace fwd             namespace sink
//! ┌───────────────┐  ┌──────────────────────┐  ┌───────────────────┐
//! │ [`Generator`] │  │ the forwarder under  │  │ [`Sink`]          │
//! │ ────► gen0 ═══╪══╪═► fwd0 ─ ? ─► fwd1 ══╪══╪═► sink0 ─► count  │
//! └───────────────┘  └──────────────────────┘  └───────────────────┘
//! ```
//!
//! A [`Chain`] consists of these three network namespaces and two veth pairs. [`Traffic`] describes
//! frames, and [`Traffic::start`] sends them from inside the kernel, up to about 15 million per
//! second from one core; [`Pktgen`] is an alternative. A [`Sink`] counts the arriving frames, and
//! can detect corrupt, reordered and duplicate frames, or keep a [`Histogram`] of latencies. A
//! [`Forwarder`] is a process in namespace fwd. A [`Window`] has the frames that generator and sink
//! counted in a given time.
//!
//! The lab needs root. Dropping a [`Chain`] removes its namespaces. [`sweep`], which every new
//! [`Chain`] calls, removes the namespaces of killed processes.
//!
//! **Sizes** are frame lengths in memory, without FCS, at least 60. On the wire, a frame takes 24
//! bytes more ([`WIRE_OVERHEAD`]).
//!
//! # Example
//!
//! ```no_run
//! use std::time::Duration;
//! use xdpfwd_lab::{Chain, Forwarder, Sink, Traffic, Window};
//!
//! # fn main() -> Result<(), xdpfwd_lab::Error> {
//! let chain = Chain::builder().build()?;
//! let mut forwarder = Forwarder::spawn(chain.fwd(), &["/tmp/bare_loop", "fwd0", "fwd1", "1"])?;
//! forwarder.wait_for_xdp(chain.fwd(), &["fwd0", "fwd1"], Duration::from_secs(5))?;
//! let sink = Sink::attach(chain.sink(), "sink0")?;
//! let generator = Traffic::new().size(60).flows(16).core(0).start(chain.gen_(), "gen0")?;
//! std::thread::sleep(Duration::from_secs(1));
//! let window = Window::measure(&generator, &sink, Duration::from_secs(5))?;
//! println!("{:.3} Mpps forwarded", window.forwarded_pps() / 1e6);
//! generator.stop()?;
//! forwarder.stop(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

mod accounting;
mod bpf;
mod chain;
mod counters;
mod error;
mod figures;
mod frame;
mod frame_sizes;
mod generator;
mod histogram;
mod leftovers;
mod namespace;
mod output;
mod pktgen;
mod privilege;
mod process;
mod report;
mod sink;
mod tool;
mod traffic;
mod veth;
mod veth_drop_counts;
mod window;

pub use accounting::{Loss, LossBasis, Mismatch, PacketAccounting};
pub use chain::{Chain, ChainBuilder, GEN_ADDRESS, SINK_ADDRESS, take_down};
pub use counters::Counters;
pub use error::Error;
pub use figures::grouped;
pub use frame::{DESTINATION_PORT, FIRST_FLOW_PORT, MAX_FLOWS, MIN_SIZE, TestFrame, WIRE_OVERHEAD};
pub use frame_sizes::IMIX;
pub use generator::{Generator, GeneratorKind, SentTotals};
pub use histogram::Histogram;
pub use leftovers::{BpfObjects, NamespaceGuard, pinned_pages};
pub use namespace::{Namespace, sweep};
pub use output::{print, print_error, print_usage};
pub use pktgen::{Pktgen, PktgenDevice, PktgenRun};
pub use privilege::require_root;
pub use process::{Forwarder, ForwarderExit};
pub use report::{
    AccountReport, CoreReport, FramesReport, GroupReport, KernelLedgerReport, KernelReport,
    PortReport, Report, StageReport,
};
pub use sink::{Sink, SinkBuilder, SinkCounters};
pub use traffic::{PacketTemplate, Traffic};
pub use veth::{MAX_MTU, VethDrops, connect, mac};
pub use veth_drop_counts::VethDropCounts;
pub use window::{Reading, Window, bits_per_second};

/// The example in README.md, compiled as a doctest.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
